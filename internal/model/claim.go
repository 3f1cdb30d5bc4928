package main

import "slices"

// electSteps are those of who wants the role: term.go, and claim.go.
func (m *model) electSteps(s *state, i int) {
	switch s.s[i].pc {
	case sDead:
		other := s.s[1-i].pc != sDead && (i == 0 || !s.lost)
		if other && m.without&lockOne == 0 || i == 1 && !s.lost && m.without&lockOne == 0 || s.led.shipperEpoch >= 6 {
			return
		}
		m.do(aElect, uint8(i), func(t *state) { m.elect(t, i) })
	case sClaim:
		m.do(aClaim, uint8(i), func(t *state) { m.claim(t, &t.s[i]) })
	}
}

// unsure reports whether the ledger that was found may lack marks.
func (m *model) unsure(s *state) bool {
	l := &s.led
	if l.boot != s.boot && m.without&bootCounts == 0 {
		if l.stamp != s.fileStamp() || s.db.wal[0].pgno != 0 || l.dbPages == none && l.txid != 0 {
			return true
		}
	}
	return l.dbPages != none && m.without&unknownCounts == 0 && slices.Contains(l.sums[:l.dbPages], 0)
}

func (m *model) elect(t *state, i int) {
	l := &t.led
	unsure := m.unsure(t)
	if l.boot != t.boot {
		l.boot = t.boot
		l.epoch++
		t.tokens = [maxTokens]token{} // their fate is not known
	}
	if unsure {
		l.all++
	}
	l.poked = false
	l.shipperEpoch++
	t.s[i] = shipper{pc: sClaim, term: l.shipperEpoch, mark: none, proof: 1}
}

func (m *model) claim(t *state, sh *shipper) {
	l, st := &t.led, &t.st
	next := l.txid + 1
	switch {
	case l.txid == 0 && st.head == 0:
		sh.rest()
		return
	case l.txid == 0 && (st.head != 1 || !m.ours(t, 1, st.names[1])),
		l.txid != 0 && st.names[l.txid] != l.head && st.names[next] != l.head:
		m.stuck(t, sh) // not proven
		return
	}
	if m.without&lookAtOpen != 0 {
		sh.rest()
		return
	}
	if there := st.names[next]; there != 0 {
		if m.ours(t, next, there) {
			m.acceptEarlier(t, next)
		} else {
			m.stuck(t, sh)
		}
		return
	}
	if slices.ContainsFunc(st.names[next:], func(there uint8) bool { return there != 0 }) {
		m.stuck(t, sh)
		return
	}
	sh.rest()
}

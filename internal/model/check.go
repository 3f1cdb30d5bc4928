package main

import "fmt"

// fail notes the first thing that is wrong with the step under way.
func (m *model) fail(format string, args ...any) {
	if m.wrong == "" {
		m.wrong = fmt.Sprintf(format, args...)
	}
}

// check holds a state, and the step that led to it, against the invariants.
func (m *model) check(from, s *state) {
	m.goesOn(from, s)
	if s.st.foreign {
		return // the history is another's; that nobody adds to it is seen when it happens
	}
	replica, l := &s.st.replica, &s.led
	if s.st.head > 0 {
		for p := uint8(1); p <= maxPages; p++ {
			if sum := l.sums[p-1]; sum != 0 && (p > replica.pages || sum != replica.value[p-1]+1) {
				m.fail("the entry of page %d speaks of a content that the store does not have", p)
			}
		}
	}
	now := s.db.now()
	for p := uint8(1); p <= now.pages; p++ {
		if (p > replica.pages || now.value[p-1] != replica.value[p-1]) && !m.covered(s, p) {
			m.fail("page %d differs from the store, and nothing tells so", p)
		}
	}
	for _, t := range s.tokens {
		if t.commit != 0 && l.durable >= t.window && s.st.commit < t.commit {
			m.fail("durable is %d, but the store does not have the commit of window %d", l.durable, t.window)
		}
	}
	if m.quiet(s) {
		if *replica != now {
			m.fail("nothing is left to do, but the store replays to %v and the database is %v", *replica, now)
		}
		for p := uint8(1); p <= now.pages; p++ {
			if l.sums[p-1] != now.value[p-1]+1 {
				m.fail("nothing is left to do, but the entry of page %d is not its sum", p)
			}
		}
	}
}

// covered reports whether something will make a page a candidate of a batch.
func (m *model) covered(s *state, p uint8) bool {
	l := &s.led
	if (l.dirty | l.inflight).has(p) || p > min(l.minPages, l.minInflight) || l.all != l.allDone || l.dbPages != none && p > l.dbPages {
		return true
	}
	if s.s[0].pc == sDead && m.unsure(s) {
		return true
	}
	k := m.catchUp(s, s.db.lock == lockMarker && s.m.ownHold)
	return k.all || k.pages.has(p) || p > k.min && !k.nothing && !k.silent
}

// quiet reports that everybody is at rest and the shipper sees nothing to do.
func (m *model) quiet(s *state) bool {
	return (s.m.pc == mIdle || s.m.pc == mClosed) && s.f == fIdle && s.db.lock == lockFree && !s.db.torn &&
		s.s[0].pc == sRest && s.s[1].pc == sDead && !s.led.hasWork() && s.st.late[0].txid|s.st.late[1].txid == 0 &&
		s.led.seenSet && s.led.seen == s.db.index && s.led.boot == s.boot &&
		(!s.db.index.fresh() || s.led.stamp == s.fileStamp()) // else a foreign writer was here, which the next commit finds
}

// goesOn holds counters to going forward.
func (m *model) goesOn(from, s *state) {
	a, b := &from.led, &s.led
	if s.boot == from.boot && (b.window < a.window || b.durable < a.durable || b.all < a.all ||
		b.allDone < a.allDone || b.shipperEpoch < a.shipperEpoch || b.txid < a.txid) {
		m.fail("a counter of the ledger goes back")
	}
	if b.durable >= b.window {
		m.fail("durable has reached the window under way")
	}
}

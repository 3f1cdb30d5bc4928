package main

import "slices"

// putSteps are those of sending and recording: the rest of batch, and put.go.
func (m *model) putSteps(s *state, i int) {
	sh := &s.s[i]
	switch sh.pc {
	case sPrepare:
		m.do(aVoid, uint8(sh.o.pages), func(t *state) { m.void(t, &t.s[i]) })
	case sNote:
		m.do(aNote, sh.o.txid, func(t *state) { m.note(t, &t.s[i]) })
	case sSync:
		m.do(aSync, 0, func(t *state) {
			if m.without&syncBefore == 0 {
				t.sync(m)
			}
			if t.s[i].pc = sPut; m.without&clearLast != 0 {
				t.led.inflight, t.led.minInflight = 0, none
			}
		})
	case sPut:
		m.requests(s, i)
	case sBelieve:
		m.do(aBelieve, sh.o.txid, func(t *state) { m.believe(t, i) })
	case sRecord:
		m.do(aRecord, uint8(sh.o.pages), func(t *state) { m.record(t, i) })
	case sRecordHead:
		m.do(aRecordHead, 0, func(t *state) {
			sh := &t.s[i]
			t.led.head, t.led.dbPages = sh.o.nonce, sh.o.state.pages
			sh.pc = sRecordTXID
		})
	case sRecordTXID:
		m.do(aRecordTXID, sh.o.txid, func(t *state) {
			sh := &t.s[i]
			t.led.txid = sh.o.txid
			if m.without&noteFirst != 0 {
				m.noteAttempt(t, &sh.o)
			}
			sh.pc = sAllDone
		})
	case sAllDone:
		m.do(aAllDone, sh.looked, func(t *state) { t.led.allDone = sh.looked; t.s[i].pc = sClear })
	case sClear:
		m.do(aClear, 0, func(t *state) {
			sh := &t.s[i]
			t.led.inflight, t.led.minInflight = 0, none
			sh.base, sh.based = sh.reached, true
			if sh.pc = sDurable; sh.o.txid == 1 {
				t.led.inflight = 1 // which makes the second object
				sh.rest()
			}
		})
	case sDurable:
		m.do(aDurable, sh.window, func(t *state) {
			t.led.durable = t.s[i].window
			t.s[i].rest()
		})
	}
}

// rest ends a batch, successful or not.
func (sh *shipper) rest() {
	*sh = shipper{pc: sRest, term: sh.term, proof: sh.proof, base: sh.base, based: sh.based, mark: none}
}

func (m *model) void(t *state, sh *shipper) {
	for p := uint8(1); p <= maxPages; p++ {
		if sh.o.pages.has(p) && m.without&voidSums == 0 || p > sh.o.state.pages && m.without&voidAbove == 0 {
			t.led.sums[p-1] = 0
		}
	}
	sh.pc = sNote
}

func (m *model) note(t *state, sh *shipper) {
	if m.without&voidSize == 0 {
		t.led.dbPages = none
	}
	if sh.reached.mxFrame != 0 {
		t.led.stamp.valid = false
	}
	if m.without&noteFirst == 0 {
		m.noteAttempt(t, &sh.o)
	}
	sh.pc = sSync
}

// noteAttempt frees the slots of attempts before the one before, and takes one.
func (m *model) noteAttempt(t *state, o *object) {
	list := slices.DeleteFunc(slices.Clone(t.led.attempts[:]), func(a attempt) bool { return a.txid == 0 || a.txid+1 < o.txid })
	if len(list) == maxAttempts {
		panic("more attempts than room")
	}
	list = append(list, attempt{o.txid, o.nonce})
	t.led.attempts = [maxAttempts]attempt{}
	copy(t.led.attempts[:], list)
}

func (m *model) ours(t *state, txid, nonce uint8) bool {
	return m.without&nonceKept == 0 && slices.Contains(t.led.attempts[:], attempt{txid, nonce})
}

// requests are what may become of a request.
func (m *model) requests(s *state, i int) {
	o := s.s[i].o
	there := s.st.names[o.txid]
	switch {
	case there == 0 || m.without&createOnly != 0:
		m.do(aPut, o.txid, func(t *state) {
			m.apply(t, &o)
			t.s[i].pc = sBelieve
		})
		if s.left[replies] > 0 {
			m.do(aPutLost, o.txid, func(t *state) {
				t.left[replies]--
				m.apply(t, &o)
			})
		}
	case there == o.nonce:
		m.do(aThere, o.txid, func(t *state) { t.s[i].pc = sBelieve })
	case s.led.shipperEpoch != s.s[i].term && m.without&epochCheck == 0:
		m.do(aThere, o.txid, func(t *state) { t.end(i) })
	case m.ours(s, o.txid, there):
		m.do(aEarlier, o.txid, func(t *state) {
			m.acceptEarlier(t, o.txid)
			t.s[i].rest()
		})
	default:
		m.do(aFenced, o.txid, func(t *state) { m.stuck(t, &t.s[i]) })
	}
	if s.left[lates] > 0 && s.st.late[1].txid == 0 {
		m.do(aGiveUp, o.txid, func(t *state) { // a Drain's time is over
			t.givesUp(o)
			t.s[i].rest()
		})
	}
	if s.left[locks] > 0 && i == 0 {
		m.do(aLoseLock, 0, func(t *state) { t.left[locks]--; t.lost = true })
	}
}

// stuck is fenced or unclaimed: nothing ships until somebody does something.
func (m *model) stuck(t *state, sh *shipper) {
	sh.rest()
	sh.pc = sStuck
	if !t.st.foreign {
		m.fail("fenced or unclaimed, though nobody else has put anything")
	}
}

func (m *model) acceptEarlier(t *state, txid uint8) {
	t.led.head, t.led.dbPages, t.led.txid = t.st.names[txid], none, txid
}

// believe decides whether a successful PUT means what it says.
func (m *model) believe(t *state, i int) {
	sh := &t.s[i]
	if stale := sh.proof == 0 || sh.proof > 2; stale && m.without&renewProof == 0 {
		for _, there := range t.st.names[sh.o.txid+1:] {
			if there != 0 {
				t.st.names[sh.o.txid] = 0
				t.st.under = false
				m.stuck(t, sh)
				return
			}
		}
	}
	sh.proof, sh.pc = 1, sRecord
	if t.st.under {
		m.fail("an object was added to another's history, and believed")
	}
	if t.lost && i == 0 { // the look at the epoch and what follows from it are taken as one step
		m.record(t, i)
		if sh.pc == sRecordHead {
			t.led.head, t.led.dbPages, t.led.txid = sh.o.nonce, sh.o.state.pages, sh.o.txid
			t.led.allDone, t.led.inflight, t.led.minInflight = sh.looked, 0, none
			t.end(i)
		}
	}
}

// record writes down what the store now has.
func (m *model) record(t *state, i int) {
	sh := &t.s[i]
	if t.led.shipperEpoch != sh.term && m.without&epochCheck == 0 {
		t.end(i)
		return
	}
	for p := uint8(1); p <= maxPages; p++ {
		if sh.o.pages.has(p) {
			t.led.sums[p-1] = sh.o.value[p-1] + 1
		}
	}
	sh.pc = sRecordHead
}

// end is what is left of a shipper whose process has ended, or that gave up its role.
func (t *state) end(i int) {
	t.s[i] = shipper{mark: none}
	if i == 0 {
		t.lost = false
	}
}

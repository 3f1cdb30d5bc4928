package main

// Parts of the ledger that reach the disk each on their own: the first page of the
// header, that of the later attempts, the bits, and the sums page by page.
const (
	partHeader = iota
	partAttempts
	partBits
	partSums
	parts = partSums + maxPages
)

// take copies one part of another version of the ledger.
func (l *ledger) take(from *ledger, part int) {
	switch part {
	case partHeader:
		attempts, dirty, inflight, sums := l.attempts, l.dirty, l.inflight, l.sums
		*l = *from
		l.attempts, l.dirty, l.inflight, l.sums = attempts, dirty, inflight, sums
	case partAttempts:
		l.attempts = from.attempts
	case partBits:
		l.dirty, l.inflight = from.dirty, from.inflight
	default:
		l.sums[part-partSums] = from.sums[part-partSums]
	}
}

// sync makes the ledger durable.
func (t *state) sync(m *model) {
	if t.left[powers] > 0 {
		t.disk = t.led
	}
}

// crashes kill a process between any two of its steps, or the machine.
func (m *model) crashes(s *state) {
	if s.left[killsM] > 0 && (s.m.pc != mIdle && s.m.pc != mClosed || s.f != fIdle) {
		m.killMarker(s, false)
		if s.m.pc == mFramed || !s.pinned() {
			m.killMarker(s, true)
		}
	}
	if s.left[killsM] > 0 && s.m.pc == mIdle && s.f == fIdle && !s.pinned() && !s.db.torn && s.db.lock == lockFree {
		m.killMarker(s, true)
	}
	for i := range s.s {
		sh := &s.s[i]
		if s.left[killsS] == 0 || sh.pc == sDead {
			continue
		}
		m.do(aKillShipper, uint8(i), func(t *state) { t.left[killsS]--; t.end(i) })
		if sh.pc == sPut && s.left[lates] > 0 && s.st.late[1].txid == 0 {
			m.do(aKillShipper, uint8(2+i), func(t *state) {
				t.left[killsS]--
				t.givesUp(sh.o)
				t.end(i)
			})
		}
	}
	if s.left[powers] > 0 {
		m.powerLoss(s)
	}
	if s.left[flushes] > 0 && s.left[powers] > 0 {
		for part := range parts {
			m.do(aWrite, uint8(part), func(t *state) { t.left[flushes]--; t.disk.take(&t.led, part) })
		}
	}
}

// killMarker ends who holds the write lock. Where nobody else has the database open, or the
// header was being written, a recovery follows.
func (m *model) killMarker(s *state, recovery bool) {
	arg := uint8(0)
	if recovery {
		arg = 1
	}
	m.do(aKillMarker, arg, func(t *state) {
		t.left[killsM]--
		t.m, t.f = marker{}, fIdle
		t.db.lock = lockFree
		t.db.torn = t.db.torn || recovery
	})
}

// powerLoss leaves each part of the ledger as it was last synced or as it is, and of
// the WAL any whole transactions from what was synced on.
func (m *model) powerLoss(s *state) {
	cuts := []uint8{none} // all of it
	if s.db.walSalt == s.db.index.salt || s.db.index.fresh() {
		synced := max(s.db.synced, s.db.backfill)
		if synced == 0 && s.db.wal[0].pgno != 0 {
			cuts = append(cuts, 0)
		}
		for i, f := range s.db.wal {
			if f.commit != 0 && uint8(i+1) >= synced {
				cuts = append(cuts, uint8(i+1))
			}
		}
	}
	for kept := range 1 << parts {
		led := s.disk
		for part := range parts {
			if kept>>part&1 != 0 {
				led.take(&s.led, part)
			}
		}
		for _, cut := range cuts {
			m.do(aPowerLoss, cut, func(t *state) {
				t.left[powers]--
				t.led, t.disk = led, ledger{}
				t.sync(m)
				t.boot++
				for i := range t.s {
					if o := t.s[i].o; t.s[i].pc == sPut && t.left[lates] > 0 && t.st.late[1].txid == 0 {
						t.givesUp(o)
					}
					t.end(i)
				}
				t.m, t.f, t.db.lock = marker{}, fIdle, lockFree
				t.tokens = [maxTokens]token{}
				if cut != none {
					clear(t.db.wal[cut:])
				}
				t.db.torn = !(t.db.index.fresh() && t.db.wal[0].pgno == 0)
				t.db.states++
			})
		}
	}
}

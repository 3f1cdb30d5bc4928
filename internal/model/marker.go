package main

// marking is what catch_up finds to do: cext/mark.c.
type marking struct {
	nothing bool // seen is the header
	silent  bool // only seen is written
	pages   set
	min     uint8
	all     bool
}

// catchUp tells what brings the marks up to the header. own: the header was seen when this
// hold of the write lock began.
func (m *model) catchUp(s *state, own bool) marking {
	now, seen := s.db.current(), s.led.seen
	set := s.led.seenSet
	if now.fresh() {
		known := set && s.led.stamp == s.fileStamp()
		if m.without&stampTells != 0 {
			known = true
		}
		if known {
			return marking{nothing: seen == now, silent: true, min: none}
		}
		return marking{all: true, min: none}
	}
	if set && now == seen {
		return marking{nothing: true}
	}
	sameSalt := set && now.salt == seen.salt
	if sameSalt && now.mxFrame == seen.mxFrame && (now.cksum == seen.cksum || now.mxFrame == 0) {
		return marking{silent: true, min: none}
	}
	switch {
	case sameSalt && now.mxFrame > seen.mxFrame && (own || m.frameIs(s, seen)):
		return m.markFrames(s, now, seen.mxFrame)
	case !sameSalt && set && (own || m.without&ownHoldOnly != 0):
		return m.markFrames(s, now, 0)
	}
	return marking{all: true, min: none}
}

func (m *model) frameIs(s *state, h header) bool {
	if h.mxFrame == 0 || m.without&frameStands != 0 && s.db.current().iChange >= h.iChange {
		return true
	}
	f := s.db.wal[h.mxFrame-1]
	return f.salt == h.salt && f.cksum == h.cksum
}

// oneCommit is a short cut that a recovery makes wrong: iChange begins anew.
func (m *model) oneCommit(from, to header) bool {
	return m.without&everySize != 0 && to.iChange == from.iChange+1
}

// markFrames marks the frames from+1 to the header's last, and what the database grew by.
func (m *model) markFrames(s *state, now header, from uint8) (k marking) {
	old := s.led.seen.pages
	if old == 0 && s.led.stamp.valid {
		old = s.led.stamp.pages
	}
	k.min = now.pages
	for _, f := range s.db.wal[min(from, now.mxFrame):now.mxFrame] {
		if f.pgno <= now.pages {
			k.pages |= page(f.pgno)
		}
		if f.commit != 0 && !m.oneCommit(s.led.seen, now) {
			k.min = min(k.min, f.commit)
		}
	}
	k.pages |= above(min(k.min, old)) & pages1(now.pages)
	return k
}

// fileStamp is the stamp of the file as it is.
func (s *state) fileStamp() stamp { return stamp{true, s.db.version, s.db.file.pages} }

// startCatchUp begins to mark, and goes on to what follows if nothing is to be marked.
func (m *model) startCatchUp(t *state, then markerPC) {
	k := m.catchUp(t, t.m.ownHold)
	t.m.then = then
	switch {
	case k.nothing:
		m.caughtUp(t)
		return
	case k.silent:
		t.led.seen, t.led.seenSet = t.db.index, true
		m.caughtUp(t)
		return
	}
	t.m.toMark, t.m.min, t.m.all = k.pages, k.min, k.all
	t.m.pc = mBits
	if t.m.toMark == 0 {
		t.m.pc = mMin
	}
	if m.without&seenLast != 0 {
		t.led.seen, t.led.seenSet = t.db.index, true
	}
}

// caughtUp goes on after catch_up.
func (m *model) caughtUp(t *state) {
	t.m.toMark, t.m.min, t.m.all = 0, 0, false
	t.m.pc, t.m.then = t.m.then, mIdle
	switch t.m.pc {
	case mOpen:
		t.m.ownHold = t.led.seenSet && t.led.seen == t.db.index
	case mUnlock:
		t.db.lock, t.m = lockFree, marker{}
	case mStamp:
		t.db.foldTo(t.db.index.mxFrame)
	}
}

// commitToken gives the newest commit its token.
func (t *state) commitToken(window uint8) {
	for i := range t.tokens {
		if t.tokens[i].commit == 0 {
			t.tokens[i] = token{window, t.db.states}
			return
		}
	}
	panic("more commits than tokens")
}

func (m *model) markerSteps(s *state) {
	switch s.m.pc {
	case mIdle, mClosed:
		if s.db.lock != lockFree {
			return
		}
		if s.db.torn { // it meets the recovery: the lock, found torn; the release, caught up
			m.do(aRecover, 0, func(t *state) {
				t.db.recover()
				t.db.lock = lockMarker
				m.startCatchUp(t, mUnlock)
			})
			return
		}
		if s.left[commits] > 0 {
			m.do(aLock, 0, func(t *state) {
				t.db.lock = lockMarker
				t.m = marker{}
				m.startCatchUp(t, mOpen)
			})
		}
		if s.m.pc == mIdle && s.left[closes] > 0 && s.f == fIdle && !s.pinned() && !s.db.index.fresh() {
			m.do(aClose, 0, func(t *state) {
				t.left[closes]--
				t.db.lock = lockExclusive
				m.startCatchUp(t, mStamp)
			})
		}
	case mBits:
		m.do(aMark, s.m.toMark.first(), func(t *state) {
			t.led.dirty |= page(t.m.toMark.first())
			if t.m.toMark &= t.m.toMark - 1; t.m.toMark == 0 {
				t.m.pc = mMin
			}
		})
	case mMin:
		m.do(aMarkMin, s.m.min, func(t *state) {
			if t.led.minPages = min(t.led.minPages, t.m.min); m.without&smallestSize != 0 {
				t.led.minPages = none
			}
			if t.m.all {
				t.led.all++
			}
			t.m.pc = mSeen
		})
	case mSeen:
		m.do(aSeen, 0, func(t *state) {
			t.led.seen, t.led.seenSet = t.db.index, true
			if t.led.stamp.valid = t.db.index.fresh(); t.led.stamp.valid {
				t.led.stamp = t.fileStamp()
			}
			t.m.pc = mPoke
		})
	case mPoke:
		m.do(aPoke, 0, func(t *state) {
			if t.m.commits && m.without&windowAfter == 0 {
				t.commitToken(t.led.window)
			}
			t.led.poked = true
			m.caughtUp(t)
		})
	case mOpen:
		if s.left[resets] > 0 && s.mayBegin() {
			m.do(aReset, 0, func(t *state) {
				t.left[resets]--
				t.db.beginWAL()
				t.m.pc = mReset
			})
		}
		m.markerFrames(s)
	case mReset:
		m.markerFrames(s)
		m.do(aRollback, 0, func(t *state) { m.startCatchUp(t, mUnlock) })
	case mFramed:
		m.do(aCommit, 0, func(t *state) {
			t.db.publish()
			t.m.commits = true
			if m.without&windowAfter != 0 {
				t.commitToken(s.m.min)
			}
			m.startCatchUp(t, mUnlock)
		})
	case mStamp:
		m.do(aStamp, 0, func(t *state) {
			if t.led.seenSet && t.led.seen == t.db.index && (t.led.boot == t.boot || m.without&stampOfBoot != 0) {
				t.led.stamp = t.fileStamp()
				t.sync(m)
			}
			t.m.pc = mDelete
		})
	case mDelete:
		m.do(aDelete, 0, func(t *state) {
			t.db.endWAL()
			t.db.lock = lockFree
			t.m = marker{pc: mClosed}
		})
	}
}

func (m *model) markerFrames(s *state) {
	for _, c := range m.changes(s) {
		m.do(aFrames, c.arg, func(t *state) {
			t.left[commits]--
			if c.resize {
				t.left[resizes]--
			}
			t.db.append(c.after, c.pages)
			t.m.pc = mFramed
			if m.without&windowAfter != 0 {
				t.m.min = t.led.window // taken too early
			}
		})
	}
}

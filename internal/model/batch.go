package main

// maxScans is how often a look at every page is begun again; the code's is 3.
const maxScans = 1

// hasWork reports whether the store may lack something.
func (l *ledger) hasWork() bool {
	return l.poked || l.all != l.allDone || l.txid == 1 || l.dirty|l.inflight != 0
}

// takeDirty is the first of two steps: bits are in flight before they stop being dirty.
func (m *model) takeDirty(t *state, sh *shipper) {
	sh.moved = t.led.dirty
	if m.without&takeKeeps != 0 {
		t.led.dirty = 0
		return
	}
	t.led.inflight |= sh.moved
}

// dropTaken is the second: those bits, and no others.
func (m *model) dropTaken(t *state, sh *shipper) {
	if m.without&takeKeeps == 0 {
		t.led.dirty &^= sh.moved
		sh.moved = 0
	}
	t.led.minInflight = min(t.led.minInflight, t.led.minPages)
	t.led.minPages = none
}

// mayPin reports that a connection of ours can open and read.
func (s *state) mayPin() bool {
	return s.db.lock != lockExclusive && (!s.db.torn || s.db.lock == lockFree)
}

// meet is what our own connection does on its way to a snapshot: where it meets a
// recovery or a new WAL, it holds the write lock, and so catches up.
func (m *model) meet(t *state) {
	if t.db.torn {
		t.db.recover()
		m.catchUpAtOnce(t)
	} else if t.db.index.fresh() && t.db.lock == lockFree {
		m.catchUpAtOnce(t)
	}
}

func (m *model) catchUpAtOnce(t *state) {
	k := m.catchUp(t, false)
	if k.nothing {
		return
	}
	if !k.silent {
		t.led.dirty |= k.pages
		t.led.minPages = min(t.led.minPages, k.min)
		if k.all {
			t.led.all++
		}
		if t.led.stamp.valid = t.db.index.fresh(); t.led.stamp.valid {
			t.led.stamp = t.fileStamp()
		}
		t.led.poked = true
	}
	t.led.seen, t.led.seenSet = t.db.index, true
}

// pin takes a snapshot.
func (m *model) pin(t *state, sh *shipper) {
	m.meet(t)
	sh.snap = t.db.index
	if sh.mark = t.db.index.mxFrame; t.db.backfill == t.db.index.mxFrame {
		sh.mark = 0
	}
	sh.state, sh.commit = t.db.now(), t.db.states
}

// unpin closes the connection. As the last one it ends the WAL, as SQLite does.
func (m *model) unpin(t *state, sh *shipper) {
	sh.mark = none
	if t.m.pc == mClosed && t.f == fIdle && t.db.lock == lockFree && !t.db.torn && !t.db.index.fresh() && !t.pinned() {
		m.catchUpAtOnce(t)
		t.db.foldTo(t.db.index.mxFrame)
		t.led.stamp = t.fileStamp()
		t.sync(m)
		t.db.endWAL()
	}
}

// value reads a page of the snapshot.
func (m *model) value(t *state, sh *shipper, p uint8) uint8 {
	im := t.db.file
	v := im.value[p-1]
	if sh.mark != 0 || m.without&markZeroFile != 0 {
		for _, f := range t.db.wal[:sh.snap.mxFrame] {
			if f.pgno == p {
				v = f.value
			}
		}
	}
	return v
}

// tail is what a snapshot holds and no marker has marked yet.
type tail struct {
	pages    set
	smallest uint8
	ok, wait bool
	read     bool // the frames behind seen are to be read
}

func (m *model) tail(s *state, sh *shipper) tail {
	snap, live, seen := sh.snap, s.db.index, s.led.seen
	size := sh.state.pages
	if s.db.torn || !s.led.seenSet {
		return tail{wait: true}
	}
	switch {
	case seen == live && seen.salt != snap.salt:
		return tail{ok: true, smallest: size}
	case seen.salt != snap.salt || !m.frameIs(s, seen):
		return tail{wait: true}
	case seen.mxFrame >= snap.mxFrame:
		return tail{ok: true, smallest: size}
	}
	return tail{read: true}
}

func (m *model) readTail(s *state, sh *shipper, from header) tail {
	t := tail{ok: true, smallest: sh.state.pages}
	if from.pages != 0 {
		t.smallest = min(t.smallest, from.pages)
	}
	for i := from.mxFrame; i < sh.snap.mxFrame; i++ {
		f := s.db.wal[i]
		if f.pgno != 0 {
			t.pages |= page(f.pgno)
		}
		if f.commit != 0 && !m.oneCommit(from, sh.snap) {
			t.smallest = min(t.smallest, f.commit)
		}
	}
	if s.db.index.salt != sh.snap.salt && m.without&recheckSalt == 0 {
		return tail{wait: true}
	}
	return t
}

// givenUp is the tail where seen does not settle in time: by an earlier snapshot, if one is
// known all of which was looked at.
func (m *model) givenUp(s *state, sh *shipper) tail {
	base, based := sh.base, sh.based
	if sh.lookedSet {
		base, based = sh.lookedAt, true
	}
	if !based || s.db.torn || base.salt != sh.snap.salt || base.mxFrame > sh.snap.mxFrame || !m.frameIs(s, base) {
		return tail{}
	}
	return m.readTail(s, sh, base)
}

// noteTail puts what a tail has found in flight.
func (m *model) noteTail(t *state, sh *shipper, tl tail) {
	sh.ok, sh.tail, sh.smallest = tl.ok, tl.pages, tl.smallest
	t.led.inflight |= tl.pages
	sh.pc = sLook
}

// batchSteps are those of reading: batch.go, copies.go and slices.go of package shipper.
func (m *model) batchSteps(s *state, i int) {
	sh := &s.s[i]
	switch sh.pc {
	case sRest:
		if s.led.hasWork() {
			m.do(aBatch, 0, func(t *state) {
				sh := &t.s[i]
				if t.lost && i == 0 || t.led.shipperEpoch != sh.term && m.without&epochCheck == 0 {
					t.end(i)
					return
				}
				t.led.poked = false
				sh.window = t.led.window
				t.led.window++
				sh.pc = sTake
				if m.without&durableLast != 0 {
					t.led.durable = sh.window
				}
				if m.without&takeBeforePin != 0 {
					sh.pc, sh.looked = sRead, t.led.allDone
					return
				}
				m.takeDirty(t, sh)
			})
		}
	case sTake:
		m.do(aTake, 0, func(t *state) {
			sh := &t.s[i]
			m.dropTaken(t, sh)
			sh.pc = sRead
			sh.looked = t.led.allDone
		})
	case sRead:
		if s.led.txid == 0 {
			m.readFirst(s, i)
			return
		}
		if s.led.all == sh.looked {
			m.do(aRead, 0, func(t *state) { t.s[i].pc = sPin })
			return
		}
		if s.mayPin() {
			m.do(aScan, 0, func(t *state) { m.beginLook(t, &t.s[i]); t.s[i].pc = sScan })
		}
	case sScan, sFirst:
		if s.mayPin() {
			m.do(aScanPage, sh.cursor, func(t *state) { m.lookAt(t, &t.s[i]) })
		}
	case sPin:
		if s.mayPin() {
			m.do(aPin, 0, func(t *state) {
				sh := &t.s[i]
				if sh.scans > maxScans {
					sh.looked = t.led.all
				}
				m.pin(t, sh)
				if m.without&takeBeforePin != 0 {
					m.takeDirty(t, sh)
					m.dropTaken(t, sh)
				}
				sh.pc = sTail
			})
		}
	case sTail:
		m.tailSteps(s, i)
	case sTailRead:
		m.do(aTailRead, 0, func(t *state) {
			sh := &t.s[i]
			tl := m.readTail(t, sh, sh.seen)
			if sh.seen = (header{}); tl.ok {
				m.noteTail(t, sh, tl)
			} else {
				sh.pc = sTail
			}
		})
	case sLook:
		m.do(aLook, 0, func(t *state) { m.look(t, &t.s[i]) })
	case sCopy:
		m.copySteps(s, i)
	case sRetake:
		m.do(aTake, 1, func(t *state) {
			sh := &t.s[i]
			m.takeDirty(t, sh)
			sh.done &^= sh.moved | above(t.led.minPages)
			m.dropTaken(t, sh)
			sh.pc = sPin
		})
	}
}

// beginLook begins a look at every page: all is read before the first pin.
func (m *model) beginLook(t *state, sh *shipper) {
	m.meet(t)
	if m.without&allBefore == 0 {
		sh.looked = t.led.all
	}
	m.pin(t, sh)
	tl := m.tail(t, sh)
	if tl.read {
		tl = m.readTail(t, sh, t.led.seen)
	}
	if tl.ok {
		t.led.inflight |= tl.pages
	}
	if t.led.txid != 0 && (t.led.dbPages != sh.state.pages || t.led.txid == 1) {
		t.led.inflight |= 1
	}
	sh.lookedAt, sh.lookedSet = sh.snap, true
	sh.size, sh.cursor = sh.state.pages, 1
	m.unpin(t, sh)
	sh.snap, sh.state, sh.commit = header{}, image{}, 0
	if sh.size == 0 {
		panic("a database without pages")
	}
}

// lookAt reads one page from a snapshot of its own.
func (m *model) lookAt(t *state, sh *shipper) {
	m.pin(t, sh)
	v, p := uint8(0), sh.cursor
	if p <= sh.state.pages {
		v = m.value(t, sh, p)
	}
	m.unpin(t, sh)
	sh.snap, sh.state, sh.commit = header{}, image{}, 0
	if sh.pc == sFirst {
		sh.whole |= page(p)
		sh.wholeV[p-1] = v
	} else if t.led.sums[p-1] != v+1 {
		t.led.inflight |= page(p)
	}
	if sh.cursor++; sh.cursor > sh.size {
		sh.cursor, sh.pc = 0, sPin
		if m.without&allBefore != 0 {
			sh.looked = t.led.all
		}
	}
}

// readFirst begins the first object: what is marked from here on is what changed since.
func (m *model) readFirst(s *state, i int) {
	if !s.mayPin() {
		return
	}
	m.do(aFirst, 0, func(t *state) {
		sh := &t.s[i]
		all := t.led.all
		m.takeDirty(t, sh)
		m.dropTaken(t, sh)
		m.beginLook(t, sh)
		sh.looked = all
		t.led.inflight, t.led.minInflight = 0, none
		sh.first, sh.whole, sh.wholeV = true, 0, [maxPages]uint8{}
		sh.pc = sFirst
	})
}

func (m *model) tailSteps(s *state, i int) {
	tl := m.tail(s, &s.s[i])
	switch {
	case tl.read:
		m.do(aTail, 0, func(t *state) { t.s[i].seen, t.s[i].pc = t.led.seen, sTailRead })
		return
	case tl.ok:
		m.do(aTail, 0, func(t *state) { m.noteTail(t, &t.s[i], tl) })
		return
	}
	m.do(aTailGivenUp, 0, func(t *state) { m.noteTail(t, &t.s[i], m.givenUp(t, &t.s[i])) })
}

// look decides which pages are read.
func (m *model) look(t *state, sh *shipper) {
	sh.every = !sh.ok || t.led.all != sh.looked && m.without&peekAll == 0
	if sh.scans > maxScans {
		sh.every = true
	} else if sh.every {
		m.unpin(t, sh)
		sh.startAgain()
		return
	}
	size := sh.state.pages
	floor := min(size, sh.smallest, t.led.minInflight, t.led.minPages)
	if sh.resized = t.led.txid != 0 && (t.led.dbPages != size || t.led.txid == 1); sh.resized {
		floor = min(floor, t.led.dbPages)
		t.led.inflight |= 1
	}
	sh.done &^= sh.tail | above(min(sh.smallest, t.led.minPages))
	sh.cand = t.led.inflight | sh.moved | above(floor)
	dirty := t.led.dirty
	if m.without&peekDirty == 0 {
		sh.cand |= dirty
	}
	if sh.every {
		sh.cand, sh.have, sh.done = pages1(size), 0, 0
	}
	sh.cand &= pages1(size) &^ (sh.done &^ dirty)
	sh.pc = sCopy
}

// startAgain begins to read anew, with a look at every page.
func (sh *shipper) startAgain() {
	sh.scans++
	sh.done, sh.have, sh.copies = 0, 0, [maxPages]uint8{}
	sh.first, sh.whole, sh.wholeV = false, 0, [maxPages]uint8{}
	sh.snap, sh.state, sh.commit, sh.tail, sh.smallest = header{}, image{}, 0, 0, 0
	if sh.pc = sRead; sh.scans > maxScans {
		sh.pc = sPin
	}
}

func (m *model) copySteps(s *state, i int) {
	m.do(aCopy, uint8(s.s[i].cand), func(t *state) {
		sh := &t.s[i]
		for p := uint8(1); p <= sh.state.pages; p++ {
			if sh.cand.has(p) {
				sh.copy(p, m.value(t, sh, p))
			}
		}
		m.unpin(t, sh)
		m.encode(t, sh)
	})
	if sh := &s.s[i]; s.left[cuts] > 0 && !sh.cand.one() && !sh.every {
		m.do(aSlice, sh.cand.first(), func(t *state) {
			sh := &t.s[i]
			t.left[cuts]--
			p := sh.cand.first()
			sh.copy(p, m.value(t, sh, p))
			m.unpin(t, sh)
			sh.snap, sh.state, sh.commit, sh.tail, sh.smallest, sh.cand = header{}, image{}, 0, 0, 0, 0
			sh.pc = sRetake
		})
	}
}

func (sh *shipper) copy(p, v uint8) {
	sh.have |= page(p)
	sh.done |= page(p)
	sh.copies[p-1] = v
}

// encode compares what was read with the ledger and makes the object.
func (m *model) encode(t *state, sh *shipper) {
	if sh.first {
		if (sh.whole|sh.have)&pages1(sh.state.pages) != pages1(sh.state.pages) {
			sh.startAgain()
			return
		}
		for p := uint8(1); p <= sh.state.pages; p++ {
			if !sh.have.has(p) {
				sh.copies[p-1] = sh.wholeV[p-1]
			}
		}
		sh.have = pages1(sh.state.pages)
	}
	o := object{txid: t.led.txid + 1, state: sh.state, commit: sh.commit}
	for p := uint8(1); p <= sh.state.pages; p++ {
		if !sh.have.has(p) || t.led.sums[p-1] == sh.copies[p-1]+1 && !(sh.resized && p == 1) && o.txid != 1 {
			continue
		}
		o.pages |= page(p)
		o.value[p-1] = sh.copies[p-1]
	}
	reached := sh.snap
	*sh = shipper{pc: sh.pc, term: sh.term, proof: sh.proof, base: sh.base, based: sh.based, window: sh.window,
		moved: sh.moved, looked: sh.looked, mark: none, reached: reached}
	if o.pages == 0 {
		if !t.st.foreign && t.st.replica != o.state {
			m.fail("nothing is sent, but the store does not have the state that was pinned")
		}
		t.st.commit = max(t.st.commit, o.commit)
		sh.pc = sAllDone
		return
	}
	t.nonces++
	o.nonce = t.nonces
	sh.o = o
	sh.pc = sPrepare
}

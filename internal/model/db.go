package main

import "slices"

// now is the newest committed state. Frames of pages that were cut off count for
// nothing, the newest frame of a page for all before it.
func (db *database) now() image { return db.at(db.current(), true) }

// current is the header, as it will be once a recovery that is due has run.
func (db *database) current() header {
	if db.torn {
		return db.recovered()
	}
	return db.index
}

// at is the state of a header, with the frames of the WAL or without.
func (db *database) at(h header, frames bool) image {
	im := db.file
	if h.pages != 0 {
		im.pages = h.pages
	}
	for _, f := range db.wal[:h.mxFrame] {
		if frames && f.pgno <= im.pages {
			im.value[f.pgno-1] = f.value
		}
	}
	im.resize(im.pages)
	return im
}

// recovered is the header that a recovery finds in the WAL: up to the last
// transaction whose frames are all there.
func (db *database) recovered() header {
	h := header{salt: db.walSalt}
	for i, f := range db.wal {
		if f.pgno == 0 || f.salt != db.walSalt {
			break
		}
		if f.commit != 0 {
			h.mxFrame, h.cksum, h.pages = uint8(i+1), f.cksum, f.commit
		}
	}
	return h
}

// recover rebuilds the wal-index. A transaction whose writer died before it told of it
// may become a committed one.
func (db *database) recover() {
	was, h := db.index, db.recovered()
	db.index, db.torn, db.backfill = h, false, 0
	if was.salt != h.salt || was.mxFrame != h.mxFrame || was.cksum != h.cksum {
		db.states++
	}
}

// beginWAL is a restart of the WAL: the header tells of it before a frame is overwritten.
func (db *database) beginWAL() {
	db.salts++
	db.index.salt, db.index.mxFrame, db.backfill, db.synced = db.salts, 0, 0, 0
}

// mayBegin reports whether a writer may restart the WAL: all of it is in the file, and
// nobody reads from it.
func (s *state) mayBegin() bool {
	if s.db.index.mxFrame == 0 || s.db.backfill != s.db.index.mxFrame {
		return false
	}
	return !slices.ContainsFunc(s.s[:], func(sh shipper) bool { return sh.mark != none && sh.mark != 0 })
}

// append writes the frames of a transaction behind what is committed. What lay there
// does not follow from them, so a recovery will not take it.
func (db *database) append(after image, changed set) {
	if db.index.salt == 0 {
		db.salts++
		db.walSalt = db.salts
	} else {
		db.walSalt = db.index.salt
	}
	db.writes++
	i := int(db.index.mxFrame)
	for p := uint8(1); p <= maxPages; p++ {
		if changed.has(p) {
			db.wal[i] = frame{pgno: p, value: after.value[p-1], cksum: db.writes, salt: db.walSalt}
			i++
		}
	}
	db.wal[i-1].commit = after.pages
	clear(db.wal[i:])
}

// publish tells of the frames that were appended.
func (db *database) publish() {
	i := db.index.mxFrame
	for db.wal[i].commit == 0 {
		i++
	}
	h := header{salt: db.walSalt, mxFrame: i + 1, iChange: db.index.iChange + 1, cksum: db.wal[i].cksum, pages: db.wal[i].commit}
	if db.index.salt == 0 {
		db.backfill, db.synced = 0, 0
	}
	db.index = h
	db.states++
}

// change is what a transaction does. Each touches page 1 where the size changes.
type change struct {
	arg    uint8
	resize bool
	pages  set
	after  image
}

// changes are all that a transaction may do.
func (m *model) changes(s *state) (all []change) {
	now := s.db.now()
	turn := func(im image, pages set) image {
		for p := uint8(1); p <= im.pages; p++ {
			if pages.has(p) {
				im.value[p-1] ^= 1
			}
		}
		return im
	}
	for p := uint8(1); p <= now.pages; p++ {
		all = append(all, change{arg: p, pages: page(p), after: turn(now, page(p))})
	}
	if now.pages > 1 {
		all = append(all, change{arg: 12, pages: 3, after: turn(now, 3)})
	}
	if s.left[resizes] == 0 {
		return all
	}
	if now.pages < m.most {
		grown := turn(now, 1)
		grown.resize(now.pages + 1)
		all = append(all, change{arg: 20, resize: true, pages: 1 | page(grown.pages), after: grown})
		grown.value[grown.pages-1] = 1
		all = append(all, change{arg: 21, resize: true, pages: 1 | page(grown.pages), after: grown})
	}
	if now.pages < m.most { // the new page went to the free list at once and is in no frame
		hollow := turn(now, 1)
		hollow.pages++
		all = append(all, change{arg: 22, resize: true, pages: 1, after: hollow})
	}
	if now.pages > 1 {
		cut := turn(now, 1)
		cut.resize(now.pages - 1)
		all = append(all, change{arg: 30, resize: true, pages: 1, after: cut})
	}
	return all
}

// fold checkpoints as much as readers allow.
func (s *state) fold() bool {
	db := &s.db
	if db.torn || db.lock == lockExclusive {
		return false
	}
	safe := db.index.mxFrame
	for _, sh := range s.s {
		if sh.mark == 0 {
			return false
		}
		if sh.mark != none {
			safe = min(safe, sh.mark)
		}
	}
	if safe <= db.backfill {
		return false
	}
	db.foldTo(safe)
	return true
}

func (db *database) foldTo(safe uint8) {
	for _, f := range db.wal[db.backfill:safe] {
		if f.pgno <= db.index.pages {
			db.file.value[f.pgno-1] = f.value
			db.file.pages = max(db.file.pages, f.pgno)
		}
	}
	if safe == db.index.mxFrame && db.index.pages != 0 {
		db.file.resize(db.index.pages)
	}
	if safe > db.backfill {
		db.version++
	}
	db.backfill, db.synced = safe, db.index.mxFrame
}

// endWAL removes it, after a last close.
func (db *database) endWAL() {
	clear(db.wal[:])
	db.index, db.walSalt, db.backfill, db.synced, db.torn = header{}, 0, 0, 0, false
}

// foreignSteps are those of a program without walferry. It holds the write lock between
// a restart of the WAL and the frames that follow; else its transaction is one step.
func (m *model) foreignSteps(s *state) {
	if s.f == fIdle && (s.db.lock != lockFree || s.left[unmarked] == 0) {
		return
	}
	if s.f == fIdle && s.left[resets] > 0 && !s.db.torn && s.mayBegin() {
		m.do(aForeignReset, 0, func(t *state) {
			t.left[resets]--
			t.db.lock, t.f = lockForeign, fReset
			t.db.beginWAL()
		})
	}
	from := *s
	if from.db.torn {
		from.db.recover()
		m.do(aForeignRecover, 0, func(t *state) { t.db.recover() })
	}
	for _, c := range m.changes(&from) {
		m.do(aForeign, c.arg, func(t *state) {
			t.left[unmarked]--
			if c.resize {
				t.left[resizes]--
			}
			if t.db.torn {
				t.db.recover()
			}
			t.db.append(c.after, c.pages)
			t.db.publish()
			t.db.lock, t.f = lockFree, fIdle
		})
	}
}

// foreignClose is the last close of a program without walferry.
func (m *model) foreignClose(s *state) {
	if s.left[closes] == 0 || s.m.pc != mClosed || s.f != fIdle || s.db.torn || s.pinned() || s.db.index.fresh() {
		return
	}
	m.do(aForeignClose, 0, func(t *state) {
		t.left[closes]--
		t.db.foldTo(t.db.index.mxFrame)
		t.db.endWAL()
	})
}

func (s *state) pinned() bool { return s.s[0].mark != none || s.s[1].mark != none }

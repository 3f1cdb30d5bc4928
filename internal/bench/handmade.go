package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/superfly/ltx"
)

// pages reads a closed database's pages.
type pages struct {
	file   *os.File
	size   uint32 // of a page
	commit uint32 // how many there are
}

func openPages(path string) (*pages, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p := &pages{file: f}
	var head [18]byte
	info, err := f.Stat()
	if err == nil {
		_, err = f.ReadAt(head[:], 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// The page size is the big-endian number at byte 16 of the database header, 1 meaning 65536.
	if p.size = uint32(binary.BigEndian.Uint16(head[16:])); p.size == 1 {
		p.size = 65536
	}
	if !ltx.IsValidPageSize(p.size) {
		return nil, errors.Join(fmt.Errorf("%s: page size %d", path, p.size), f.Close())
	}
	p.commit = uint32(info.Size() / int64(p.size))
	return p, nil
}

// transaction writes the level 0 object of a commit at a moment that changed the given pages, in
// ascending order, into what they are in the database. The bytes are those of the format's own
// library. Such an object takes microseconds to make, where a real commit a second takes hours.
func (p *pages) transaction(dir string, txid ltx.TXID, at time.Time, pgnos []uint32) (err error) {
	path := filepath.Join(dir, ltx.FormatFilename(txid, txid))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Chtimes(path, at, at) // the time of an object in a directory
		}
	}()
	enc, err := ltx.NewEncoder(f)
	if err != nil {
		return err
	}
	err = enc.EncodeHeader(ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: p.size, Commit: p.commit,
		MinTXID: txid, MaxTXID: txid, Timestamp: at.UnixMilli(), WALOffset: 32,
	})
	if err != nil {
		return err
	}
	page := make([]byte, p.size)
	for _, n := range pgnos {
		if _, err := p.file.ReadAt(page, int64(n-1)*int64(p.size)); err != nil {
			return err
		}
		if err := enc.EncodePage(ltx.PageHeader{Pgno: n}, page); err != nil {
			return err
		}
	}
	return enc.Close()
}

// newest returns the highest TXID of the target's replica, 0 if it holds nothing.
func (t target) newest() (ltx.TXID, error) {
	names, err := t.objects(allLevels...)
	if err != nil {
		return 0, err
	}
	var newest ltx.TXID
	for _, name := range names {
		_, last, err := ltx.ParseFilename(filepath.Base(name))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		newest = max(newest, last)
	}
	return newest, nil
}

// plantCommits puts n level 0 objects behind what the replica of a database holds, a second apart, of
// which choose says what pages they hold. They leave the database as it is.
func plantCommits(db string, to target, n int, choose func(i int, commit uint32) []uint32) error {
	p, err := openPages(db)
	if err != nil {
		return err
	}
	defer p.file.Close()
	if err := os.MkdirAll(to.level(0), 0o755); err != nil {
		return err
	}
	newest, err := to.newest()
	if err != nil {
		return err
	}
	begin := time.Now().Truncate(time.Millisecond).Add(-time.Duration(n) * time.Second)
	lock := ltx.LockPgno(p.size)
	for i := range n {
		pgnos := choose(i, p.commit)
		pgnos = slices.DeleteFunc(pgnos, func(pgno uint32) bool { return pgno == lock })
		if err := p.transaction(to.level(0), newest+1+ltx.TXID(i), begin.Add(time.Duration(i)*time.Second), pgnos); err != nil {
			return err
		}
	}
	return nil
}

// aFewPages is what small commits change: three pages each, anywhere.
func aFewPages(i int, commit uint32) []uint32 {
	rng := rand.New(rand.NewPCG(uint64(i), 10))
	pgnos := make([]uint32, 3)
	for k := range pgnos {
		pgnos[k] = 1 + rng.Uint32N(commit)
	}
	slices.Sort(pgnos)
	return slices.Compact(pgnos)
}

// partOf returns the choice by which n commits together change every page once.
func partOf(n int) func(i int, commit uint32) []uint32 {
	return func(i int, commit uint32) []uint32 {
		first := uint64(commit) * uint64(i) / uint64(n)
		next := uint64(commit) * uint64(i+1) / uint64(n)
		var pgnos []uint32
		for pgno := first + 1; pgno <= next; pgno++ {
			pgnos = append(pgnos, uint32(pgno))
		}
		return pgnos
	}
}

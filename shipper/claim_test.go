package shipper

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ledger"
	"github.com/walferry/walferry/internal/objstore"
)

// run calls f as a process that may be killed.
func (g *rig) process(s *Shipper, f func()) {
	g.t.Helper()
	defer func() {
		if v := recover(); v != nil {
			if _, ok := v.(killed); !ok {
				panic(v)
			}
		}
		s.end()
	}()
	f()
}

// onCreate makes the n-th Create meet a fault.
func (g *rig) onCreate(n int, f fault) {
	g.store.setFault(func(op string, _ objstore.Object, i int) fault {
		if op == "create" && i == n {
			return f
		}
		return works
	})
}

func TestTakeoverGoesOnWithWhatIsHere(t *testing.T) {
	inBubble(t, func(g *rig) {
		g.plant(9, 1, 42, state{9, 9, 9, 9, 9, 9, 9, 9})
		g.plant(0, 2, 42, state{8, 8, 8, 8, 8, 8})
		s := g.stepper(func(c *Config) { c.Takeover = true })
		g.batch(s)
		g.replicated()
		if g.objects() != 3 || g.header(s).TXID != 3 {
			t.Fatalf("%d objects, TXID %d", g.objects(), g.header(s).TXID)
		}
		s.end()
		// From now on it is ours, without the option.
		g.write(3, 3)
		s = g.stepper()
		defer s.end()
		g.batch(s)
		g.replicated()
	})
}

func TestInvariant15_NothingIsPutUnderAPrefixThatIsNotProvablyOurs(t *testing.T) {
	header := func(f func(h *ledger.Header)) func(g *rig) {
		return func(g *rig) {
			l, err := ledger.Open(g.db.path)
			if err != nil {
				g.t.Fatal(err)
			}
			defer l.Close()
			f(l.Header())
		}
	}
	for name, lose := range map[string]func(g *rig){
		"removed":         func(g *rig) { os.Remove(g.db.path + ledger.Suffix) },
		"truncated":       func(g *rig) { os.Truncate(g.db.path+ledger.Suffix, 70000) },
		"emptied":         func(g *rig) { os.Truncate(g.db.path+ledger.Suffix, 0) },
		"garbled":         header(func(h *ledger.Header) { h.Magic[0] = 'X' }),
		"another version": header(func(h *ledger.Header) { h.Version = 77 }),
		"another TXID":    header(func(h *ledger.Header) { h.TXID = 1 }),
		"a TXID to come":  header(func(h *ledger.Header) { h.TXID = 77 }),
		"another head":    header(func(h *ledger.Header) { h.HeadSum++ }),
		"copied": func(g *rig) {
			name := g.db.path + ledger.Suffix
			if err := errors.Join(exec.Command("cp", "-a", name, name+"2").Run(), os.Rename(name+"2", name)); err != nil {
				g.t.Fatal(err)
			}
		},
		"of another replica": func(g *rig) {
			clear(g.store.objects)
			g.plant(9, 1, 4242, make(state, 5))
			g.plant(0, 2, 4243, make(state, 5))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(g *rig) {
				s := g.open()
				g.write(1, 1)
				pass(5 * time.Second)
				g.write(2, 1)
				pass(5 * time.Second)
				g.write(4, 1) // by now the attempt after TXID 1 is forgotten, which would prove it
				pass(5 * time.Second)
				s.Close(time.Now())
				puts := g.store.count("create")
				lose(g)
				g.store.calls["remove"] = 0
				s = g.open()
				defer s.Close(time.Now())
				pass(5 * time.Second)
				g.write(3, 1)
				pass(time.Minute)
				if st := s.Status(); st.State != "unclaimed" && st.State != "fenced" || !strings.Contains(st.Cause, "takeover=1") {
					t.Errorf("state %s: %s", st.State, st.Cause)
				}
				if g.store.count("create") != puts || g.store.count("remove") != 0 {
					t.Error("the store was written to")
				}
			})
		})
	}
}

func TestFencedAtOpen(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		s.end()
		g.plant(0, g.next(), 42, make(state, 5))
		s = g.stepper()
		defer s.end()
		s.claim()
		if s.state != StateFenced || s.claimed {
			t.Fatalf("state %s", s.state)
		}
	})
}

// Newer than the next TXID, as another machine and its compaction leave it.
func TestFencedAtOpenByAnyNewerObject(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		s.end()
		g.plant(0, 7, 42, make(state, 5))
		s = g.stepper()
		defer s.end()
		if s.claim(); s.state != StateFenced {
			t.Fatalf("state %s", s.state)
		}
	})
}

// TestAnObjectThatIsNoLTXFileIsLookedAtAgain has a reply, or an object, that tells of no other
// writer: nothing ships and the status says why, until it is gone.
func TestAnObjectThatIsNoLTXFileIsLookedAtAgain(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		defer s.end()
		g.batch(s)
		o := g.plant(0, g.next(), 42, make(state, 5))
		g.store.objects[keyOf(o)].data = []byte("hello")
		g.write(1, 1)
		time.AfterFunc(time.Minute, func() {
			if got := s.Status(); got.State != StateUnreachable.String() || !strings.Contains(got.Cause, o.Name()) {
				t.Errorf("state %s, cause %q", got.State, got.Cause)
			}
			g.store.mu.Lock()
			defer g.store.mu.Unlock()
			delete(g.store.objects, keyOf(o))
		})
		g.batch(s)
		g.replicated()
	})
}

func TestAnEmptiedPrefixBeginsANewHistory(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		g.write(3, 3)
		g.batch(s)
		epoch := g.header(s).Epoch
		s.end()
		clear(g.store.objects)
		s = g.stepper()
		defer s.end()
		g.batch(s)
		g.replicated()
		if g.objects() != 2 || g.header(s).Epoch == epoch {
			t.Fatalf("%d objects, epoch %d", g.objects(), g.header(s).Epoch)
		}
	})
}

func TestTheSameObjectsElsewhereAreProven(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		s.end()
		g.store.url = "mem://another/place"
		before := g.objects()
		g.write(3, 3)
		s = g.stepper()
		defer s.end()
		g.batch(s)
		g.replicated()
		if g.objects() != before+1 || g.header(s).Replica() != g.store.url {
			t.Fatalf("%d objects, replica %s", g.objects(), g.header(s).Replica())
		}
	})
}

// The head may have been compacted away into an object that ends with it.
func TestACompactedHeadIsFoundByItsNewestPart(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		g.write(3, 3)
		g.batch(s)
		s.end()
		// Level 1 holds it under the same header; level 0 does not any more.
		head := objectOf(ltx.TXID(g.objects()))
		was := g.store.objects[keyOf(head)]
		delete(g.store.objects, keyOf(head))
		was.name.Level = 1
		g.store.objects[keyOf(was.name)] = was
		s = g.stepper()
		defer s.end()
		if s.claim(); !s.claimed {
			t.Fatalf("state %s: %s", s.state, s.cause)
		}
	})
}

// The attempts of processes that were killed, whose PUTs arrive whenever.
func TestALatePutOfAnEarlierProcessIsOurs(t *testing.T) {
	for name, f := range map[string]fault{"before": killsAfter, "late": killsLate, "never": kills} {
		for _, first := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(g *rig) {
					if !first {
						s := g.stepper()
						g.batch(s)
						s.end()
					}
					if first {
						g.stepper().end()
					}
					g.write(1, 1, 2)
					g.onCreate(g.store.count("create")+1, f)
					s := g.stepper()
					g.process(s, func() { s.batch(nil) })
					g.store.up()
					g.write(2, 3, 4)
					s = g.stepper()
					s.claim() // before it arrives
					g.store.arrive()
					g.batch(s)
					g.replicated()
					if g.header(s).UndoneLast != 0 {
						t.Error("something was undone")
					}
					s.end()
				})
			})
		}
	}
}

// A kill between two words of the header: the sum is the new object's, the TXID
// that of before.
func TestAKillBetweenTheHeadAndItsTXID(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		head := g.header(s).TXID
		g.write(4, 4)
		g.onCreate(g.store.count("create")+1, killsAfter)
		g.process(s, func() { s.batch(nil) })
		g.store.up()
		raw := g.store.objects[keyOf(objectOf(ltx.TXID(head+1)))].data[:ltx.HeaderSize]
		l, err := ledger.Open(g.db.path)
		if err != nil {
			t.Fatal(err)
		}
		if l.Header().TXID != head {
			t.Fatalf("TXID %d", l.Header().TXID)
		}
		l.Header().HeadSum = ledger.HeadSum(raw)
		l.Close()
		s = g.stepper()
		defer s.end()
		g.batch(s)
		g.replicated()
		if g.header(s).TXID < head+1 {
			t.Fatalf("TXID %d", g.header(s).TXID)
		}
	})
}

// Attempts and TXID lie in different pages of the ledger: a power loss that keeps
// the newer of one and the older of the other must not make a stranger of us.
func TestAttemptsOutliveAPowerLoss(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		head := g.header(s).TXID
		for n := range byte(9) { // attempts of processes that were killed
			g.write(n+1, 1)
			g.onCreate(g.store.count("create")+1, kills)
			g.process(s, func() { s.batch(nil) })
			g.store.up()
			s = g.stepper()
		}
		if off := unsafe.Offsetof(hdr.Attempts) + 9*unsafe.Sizeof(hdr.Attempts[0]); off < 4096 {
			t.Fatalf("attempt 9 is at %d, in the first page", off)
		}
		var old []byte // the first page as of the newest PUT
		keep := func(*memObject) {
			old = make([]byte, 4096)
			if _, err := g.db.file().ReadAt(old, 0); err != nil {
				t.Error(err)
			}
		}
		g.store.attempt = keep
		g.write(77, 2)
		g.batch(s)
		s.end()
		if _, err := g.db.file().WriteAt(old, 0); err != nil {
			t.Fatal(err)
		}
		s = g.stepper()
		if g.header(s).TXID != head {
			t.Fatalf("TXID %d", g.header(s).TXID)
		}
		g.write(78, 2)
		g.batch(s)
		// The same where the next one is noted already, and not yet synced.
		g.store.attempt = nil
		g.write(79, 2)
		g.onCreate(g.store.count("create")+1, kills)
		g.process(s, func() { s.batch(nil) })
		g.store.up()
		if _, err := g.db.file().WriteAt(old, 0); err != nil {
			t.Fatal(err)
		}
		s = g.stepper()
		defer s.end()
		g.batch(s)
		g.replicated()
	})
}

// The PUT of the last object is answered, what was before it is merged and removed,
// and then the power goes, before the ledger's TXID is on the disk: the head that the
// ledger knows of is not there any more, and the attempt after it is.
func TestAPowerLossAfterTheHeadWasMergedAndRemoved(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		g.write(1, 1)
		g.batch(s)
		head := objectOf(ltx.TXID(g.objects()))
		var old []byte // the first page as of the newest PUT
		g.store.attempt = func(*memObject) {
			old = make([]byte, 4096)
			if _, err := g.db.file().ReadAt(old, 0); err != nil {
				t.Error(err)
			}
		}
		g.write(2, 2)
		g.batch(s)
		s.end()
		delete(g.store.objects, keyOf(head))
		if _, err := g.db.file().WriteAt(old, 0); err != nil {
			t.Fatal(err)
		}
		s = g.stepper()
		defer s.end()
		if h := g.header(s); h.TXID != uint64(head.Max) {
			t.Fatalf("TXID %d", h.TXID)
		}
		g.write(3, 3)
		g.batch(s)
		if h := g.header(s); h.TXID != uint64(head.Max)+2 {
			t.Fatalf("TXID %d, want the second after %d", h.TXID, head.Max)
		}
	})
}

func TestUnfinishedUploadsAreAbortedAtOpen(t *testing.T) {
	for _, first := range []bool{true, false} {
		inBubble(t, func(g *rig) {
			if !first {
				s := g.stepper()
				g.batch(s)
				s.end()
			}
			if first {
				g.stepper().end()
			}
			g.store.part = 10
			g.write(5, 1, 2)
			g.onCreate(g.store.count("create")+1, kills)
			s := g.stepper()
			g.process(s, func() { s.batch(nil) })
			if len(g.store.uploads) != 1 {
				t.Fatalf("%d uploads", len(g.store.uploads))
			}
			g.store.up()
			s = g.stepper()
			defer s.end()
			s.claim()
			if len(g.store.uploads) != 0 || g.store.count("abort") != 1 {
				t.Errorf("first %v: %d uploads are left, %d aborted", first, len(g.store.uploads), g.store.count("abort"))
			}
			g.batch(s)
			g.replicated()
			s.claim()
			if g.store.count("abort") != 1 {
				t.Error("an upload that ended well is aborted")
			}
		})
	}
}

// Who may not abort may still ship.
func TestAnUploadThatMayNotBeAbortedIsNoReasonNotToShip(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.batch(s)
		g.store.part = 10
		g.write(5, 1, 2)
		g.onCreate(g.store.count("create")+1, kills)
		g.process(s, func() { s.batch(nil) })
		g.store.setFault(func(op string, _ objstore.Object, _ int) fault {
			if op == "abort" {
				return refuses
			}
			return works
		})
		s = g.stepper()
		defer s.end()
		g.batch(s)
		g.replicated()
		if g.logged("unfinished upload") != 1 {
			t.Error("nothing was logged")
		}
	})
}

// Who was followed while its request was under way, because its lock was lost, leaves the
// ledger to who has followed it.
func TestAShipperThatWasFollowedGoesOnFromNoEarlierAttempt(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		defer s.end()
		g.batch(s)
		const nonce = 77
		next := g.next()
		h := g.header(s)
		h.Attempts[len(h.Attempts)-1] = ledger.Attempt{TXID: uint64(next), Nonce: nonce}
		g.plant(0, next, nonce, g.db.now())
		g.store.setFault(func(op string, _ objstore.Object, _ int) fault {
			if op == "create" {
				atomic.AddUint64(&h.ShipperEpoch, 1)
				atomic.StoreUint64(&h.TXID, uint64(next+1))
			}
			return works
		})
		g.write(5, 1, 2)
		if _, err := s.batch(nil); !errors.Is(err, errLost) {
			t.Errorf("error %v", err)
		}
		if got := load(&h.TXID); got != uint64(next+1) {
			t.Errorf("TXID went from %d to %d", next+1, got)
		}
	})
}

// An attempt with pages of another size turns out to be in: what follows must
// not mix the two.
func TestAnEarlierAttemptOfAnotherPageSize(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		defer s.end()
		g.store.setFault(func(op string, _ objstore.Object, _ int) fault {
			if op == "create" {
				return losesReply
			}
			if op == "open" {
				return fails
			}
			return works
		})
		d := s.Drain(time.Now().Add(time.Second))
		if again, err := s.batch(d); again == 0 || err != nil {
			t.Fatalf("%v, %v", again, err)
		}
		g.store.up()
		g.db.page = 1024
		for range 3 {
			if again, _ := s.batch(nil); again > 0 {
				pass(again)
			}
		}
		if s.state != StatePageSize || g.objects() != 1 {
			t.Fatalf("state %s, %d objects", s.state, g.objects())
		}
		pass(2 * time.Second)
		close(s.done)
	})
}

func TestAPageSizeThatChangedAsksForAnotherPrefix(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		defer s.end()
		g.batch(s)
		before := g.objects()
		g.db.page = 4096
		g.write(1, 1)
		s.batch(nil)
		if s.state != StatePageSize || g.objects() != before || !strings.Contains(s.cause, "another prefix") {
			t.Fatalf("state %s: %s", s.state, s.cause)
		}
	})
}

// What makes every page a candidate costs a look at every page, and no upload of
// one that the store has.
func TestADoubtCostsOneScanAndNoUpload(t *testing.T) {
	for name, doubt := range map[string]func(g *rig, h *ledger.Header){
		"another boot": func(_ *rig, h *ledger.Header) { h.Boot[3]++ },
		"the database is another file": func(g *rig, _ *ledger.Header) {
			os.Rename(g.db.path, g.db.path+".old")
			os.WriteFile(g.db.path, nil, 0o600)
		},
		"an entry is not known": func(_ *rig, h *ledger.Header) {},
		"a stamp that does not fit": func(g *rig, h *ledger.Header) {
			g.db.lastClose()
			h.Boot[3]++
			h.Stamp.Size++
		},
		"a stamp and a WAL": func(g *rig, h *ledger.Header) {
			g.db.lastClose()
			h.Boot[3]++
			os.WriteFile(g.db.path+"-wal", []byte("frames"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(g *rig) {
				s := g.stepper()
				g.write(1, 1)
				g.batch(s)
				doubt(g, g.header(s))
				if name == "an entry is not known" {
					s.ledger.Load().SetSum(3, 0)
				}
				s.end()
				reads, before := g.db.reads, g.objects()
				s = g.stepper()
				defer s.end()
				if h := g.header(s); load(&h.All) == load(&h.AllDone) {
					t.Fatal("nothing is doubted")
				}
				g.batch(s)
				want := map[bool]int{true: 1, false: 0}[name == "an entry is not known"]
				if n := g.db.reads - reads; n != 5+want { // each is looked at, and what differs is read
					t.Errorf("%d pages were read", n)
				}
				if g.objects()-before != want {
					t.Errorf("%d objects, want %d", g.objects()-before, want)
				}
				g.replicated()
				if s.hasWork() {
					t.Error("there is still work")
				}
			})
		})
	}
}

func TestACleanCloseSparesTheScanAfterABoot(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.write(1, 1)
		g.batch(s)
		g.db.lastClose()
		epoch := g.header(s).Epoch
		g.header(s).Boot[3]++
		s.end()
		s = g.stepper()
		defer s.end()
		if s.hasWork() {
			t.Error("a scan, though the last close was clean")
		}
		if g.header(s).Epoch == epoch || g.header(s).Boot != ledger.BootID() {
			t.Error("another boot has the same epoch")
		}
	})
}

// A program without walferry commits, and clears no stamp; what it wrote is
// shipped, and a power loss takes it back: the stamp must not vouch for it.
func TestAStampDoesNotVouchForWhatWasShippedAfterIt(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		g.write(1, 1)
		g.batch(s)
		g.db.lastClose()
		g.db.commit(set(9, 4), true, false)
		g.batch(s)
		g.replicated()
		g.header(s).Boot[3]++
		s.end()
		// The WAL is gone; SQLite begins a new one, and the shim finds the
		// file as it was stamped, if it still has the stamp.
		back := g.db.commits[g.db.stamped]
		g.db.commits = append(g.db.commits, commit{after: back.after})
		os.Remove(g.db.path + "-wal")
		if g.db.get(offStamp) != 0 {
			g.db.put(offSeen, uint64(len(g.db.commits)-1), 4)
		} else {
			g.db.catchUp(-1, never)
		}
		s = g.stepper()
		defer s.end()
		g.batch(s)
		g.replicated()
	})
}

func TestAnythingInTheLedgerIsBorne(t *testing.T) {
	for n := uint64(1); n <= 60; n++ {
		inBubble(t, func(g *rig) { garbled(g, n) })
	}
}

func FuzzGarbledLedger(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { inBubble(t, func(g *rig) { garbled(g, seed) }) })
}

// garbled opens a ledger with random bytes in its header and ships: nothing may
// fault, hang, or keep the shipper busy. What an entry says cannot be checked, so
// what is shipped is not.
func garbled(g *rig, seed uint64) {
	r := newRand(seed)
	s := g.open()
	g.write(1, 1)
	pass(3 * time.Second)
	s.Close(time.Now())
	for range 1 + r.IntN(6) {
		b := make([]byte, 1+r.IntN(40))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		at := int64(r.IntN(8300))
		if r.IntN(5) == 0 {
			at = ledger.HeaderSize + int64(r.IntN(8192))
		}
		if _, err := g.db.file().WriteAt(b, at); err != nil {
			g.t.Fatal(err)
		}
	}
	s = g.open()
	defer s.Close(time.Now())
	pins, calls := g.pins(), g.store.allCalls()
	for n := range byte(5) {
		g.write(n+10, 2)
		pass(2 * time.Second)
	}
	_ = s.Status()
	if p, c := g.pins()-pins, g.store.allCalls()-calls; p > 60 || c > 200 {
		g.t.Errorf("seed %d: %d pins and %d requests for five commits", seed, p, c)
	}
}

func TestTimestampsNeverGoBack(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		defer s.end()
		g.batch(s)
		future := time.Now().Add(time.Hour).UnixMilli()
		g.header(s).HeadTimeMs = future
		for n := range byte(3) {
			g.write(n+1, 1)
			g.batch(s)
		}
		last := future
		for _, o := range g.store.history()[2:] {
			h, _, err := new(image).apply(o)
			if err != nil {
				t.Fatal(err)
			}
			if h.Timestamp <= last || !o.meta.Timestamp.Equal(time.UnixMilli(h.Timestamp)) {
				t.Errorf("%s has time %d after %d, its metadata %v", o.name, h.Timestamp, last, o.meta.Timestamp)
			}
			last = h.Timestamp
		}
	})
}

func TestObjectsAreAsLitestreamWantsThem(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		defer s.end()
		nonces := map[uint64]bool{}
		for n := range byte(4) {
			g.write(n+1, 1, 3)
			g.batch(s)
		}
		im := new(image)
		for i, o := range g.store.history() {
			h, changed, err := im.apply(o)
			if err != nil {
				t.Fatal(err)
			}
			level := 0
			if i == 0 {
				level = 9
				if len(changed) != 5 {
					t.Errorf("%s holds %d pages of 5", o.name, len(changed))
				}
			}
			if o.name.Level != level || h.Flags != ltx.HeaderFlagNoChecksum || h.MinTXID != h.MaxTXID || h.MinTXID != ltx.TXID(i+1) ||
				h.WALOffset != 32 || h.WALSize != 0 || h.PreApplyChecksum != 0 || h.Commit != 5 {
				t.Errorf("%s: %+v", o.name, h)
			}
			if h.NodeID == 0 || nonces[h.NodeID] {
				t.Errorf("%s has nonce %x", o.name, h.NodeID)
			}
			nonces[h.NodeID] = true
			if o.meta.Checksum != im.checksum() || o.meta.Checksum == 0 {
				t.Errorf("%s has checksum %x, want %x", o.name, o.meta.Checksum, im.checksum())
			}
		}
	})
}

func TestTheChecksumFollowsSizesAndScans(t *testing.T) {
	inBubble(t, func(g *rig) {
		s := g.stepper()
		defer s.end()
		g.batch(s)
		for n, size := range []int{8, 3, 4, 9, 2, 7} {
			g.db.write(resize(size, byte(n)))
			if n%2 == 0 {
				g.db.addAll()
			}
			g.batch(s)
			g.replicated()
			im := replay(t, g.store.history())
			all := g.store.history()
			if got := all[len(all)-1].meta.Checksum; got != im.checksum() {
				t.Errorf("size %d: checksum %x, want %x", size, got, im.checksum())
			}
		}
	})
}

func TestAProofThatIsTooOldIsRenewed(t *testing.T) {
	for _, theirs := range []bool{false, true} {
		inBubble(t, func(g *rig) {
			s := g.stepper()
			defer s.end()
			g.batch(s)
			s.proof -= proofHolds + time.Second
			g.write(5, 1)
			if theirs {
				// They have put two, and compaction has freed the first's name.
				g.plant(0, g.next()+1, 42, make(state, 5))
			}
			next, head := objectOf(g.next()), g.header(s).TXID
			lists, removes := g.store.count("list"), g.store.count("remove")
			s.batch(nil)
			if g.store.count("list") != lists+1 {
				t.Errorf("%d lists", g.store.count("list")-lists)
			}
			if !theirs {
				g.replicated()
				g.write(6, 1)
				g.batch(s)
				if g.store.count("list") != lists+1 {
					t.Error("the proof was not renewed")
				}
				return
			}
			if s.state != StateFenced || g.store.count("remove") != removes+1 || g.store.objects[keyOf(next)] != nil {
				t.Errorf("state %s, %d removed", s.state, g.store.count("remove")-removes)
			}
			if h := g.header(s); h.TXID != head || h.Durable >= h.Window-1 {
				t.Errorf("TXID %d, durable %d of window %d", h.TXID, h.Durable, h.Window)
			}
		})
	}
}

// Two machines with the same data, the same ledger to the last byte: of what
// follows only one's objects are in the history.
func TestInvariant8_AClonedMachineNeverAddsUnnoticed(t *testing.T) {
	for n := uint64(1); n <= 40; n++ {
		inBubble(t, func(g *rig) {
			r := newRand(n)
			s := g.stepper()
			g.write(1, 1)
			g.batch(s)
			clone := &rig{t: t, store: g.store, wakes: map[int]func(){}}
			clone.db = cloneOf(g)
			defer clone.db.close()
			machines := []*rig{g, clone}
			ships := []*Shipper{s, clone.stepper()}
			defer ships[0].end()
			defer ships[1].end()
			before, owner := g.objects(), -1
			for i := range 12 {
				m := r.IntN(2)
				if r.IntN(3) > 0 {
					machines[m].write(byte(10+i), 1+uint32(r.IntN(5)))
				}
				if r.IntN(4) == 0 {
					ships[m].proof -= proofHolds
				}
				was := g.objects()
				if ships[m].state.Stuck() {
					continue
				}
				if again, err := ships[m].batch(nil); err != nil || again > 0 {
					t.Fatalf("seed %d: %v, %v", n, again, err)
				}
				if g.objects() > was {
					if owner < 0 {
						owner = m
					}
					if m != owner {
						t.Fatalf("seed %d: machine %d added to the history of machine %d", n, m, owner)
					}
					machines[m].replicated()
				}
			}
			if owner >= 0 && g.objects() > before {
				machines[1-owner].write(200, 1)
				if !ships[1-owner].state.Stuck() {
					ships[1-owner].batch(nil)
				}
				if ships[1-owner].state != StateFenced {
					t.Errorf("seed %d: state %s", n, ships[1-owner].state)
				}
			}
		})
	}
}

// cloneOf is the database on a disk that was cloned: the ledger's inode is the
// same there, which is done here by writing the clone's own into it.
func cloneOf(g *rig) *simDB {
	path := ramDir(g.t) + "/app.db"
	db, err := newSimDB(path, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	db.commits = slices.Clone(g.db.commits)
	l, err := ledger.Open(path)
	if err != nil {
		g.t.Fatal(err)
	}
	defer l.Close()
	if err := l.Reset(path); err != nil {
		g.t.Fatal(err)
	}
	was := *l.Header()
	data, err := os.ReadFile(g.db.path + ledger.Suffix)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := db.file().WriteAt(data, 0); err != nil {
		g.t.Fatal(err)
	}
	h := l.Header()
	h.OwnIno, h.OwnBtimeNs, h.DBDev, h.DBIno = was.OwnIno, was.OwnBtimeNs, was.DBDev, was.DBIno
	return db
}

func TestALargeBatchIsSpilledToAFileWithoutAName(t *testing.T) {
	if underRace {
		t.Skip("takes most of a minute under the race detector, and has no concurrency that others lack")
	}
	dir := ramDir(t)
	db, err := newSimDB(dir+"/app.db", 120_000)
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	store := newMemStore()
	s, err := stepper(Config{Database: db.path, Store: store, Source: db, Interval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.end()
	var spilled atomic.Bool
	store.attempt = func(*memObject) {
		if s.body.Spilled() && s.sums.Spilled() {
			spilled.Store(true)
		}
		names, _ := os.ReadDir(dir)
		for _, n := range names {
			if !slices.Contains([]string{"app.db", "app.db-wal", "app.db-ledger"}, n.Name()) {
				t.Errorf("%s lies beside the database", n.Name())
			}
		}
	}
	for _, change := range []func(state) (state, []uint32){
		set(1, 1),
		func(s state) (state, []uint32) {
			var pages []uint32
			for p := range s {
				s[p] = byte(p)
				pages = append(pages, uint32(p+1))
			}
			return s, pages
		},
	} {
		db.write(change)
		if _, err := s.batch(nil); err != nil || s.state != StateShipping {
			t.Fatalf("%v, state %s", err, s.state)
		}
		if !spilled.Swap(false) {
			t.Error("body and sums were kept in memory")
		}
		if err := db.now().equals(replay(t, store.history())); err != nil {
			t.Fatal(err)
		}
		if s.body.Spilled() || s.sums.Spilled() || s.copies.pages.Spilled() {
			t.Error("a temporary file is open after the batch")
		}
	}
	l := s.ledger.Load()
	if l.Unknown(120_000, 0) || l.Pending() != 0 {
		t.Error("entries are not known after a large batch")
	}
}

package main

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/zeebo/xxh3"
)

// model is a configuration with some rules left out, and the step under way.
type model struct {
	config
	without rule

	from  *state
	emit  func(a action, arg uint8, next *state)
	wrong string // with the step under way
	next  state
}

// do is one step: it changes a copy of the state.
func (m *model) do(a action, arg uint8, change func(t *state)) {
	m.next = *m.from
	m.wrong = ""
	change(&m.next)
	m.emit(a, arg, &m.next)
}

// steps makes all steps that a state allows.
func (m *model) steps(s *state) {
	m.from = s
	m.markerSteps(s)
	m.foreignSteps(s)
	m.foreignClose(s)
	if s.left[folds] > 0 {
		folded := *s
		if folded.fold() {
			m.do(aFold, 0, func(t *state) { t.left[folds]--; t.fold() })
		}
	}
	for i := range s.s {
		m.batchSteps(s, i)
		m.putSteps(s, i)
		m.electSteps(s, i)
	}
	m.arrive(s)
	m.machineSteps(s)
	m.crashes(s)
}

// start is the first state: the store has two objects and everything is at rest, or the
// store is empty and the ledger new.
func (m *model) start() state {
	s := state{left: m.left, boot: 1}
	file := image{pages: m.pages}
	s.db = database{index: header{salt: 1, pages: m.pages}, walSalt: 1, file: file, salts: 1, states: 1}
	s.led = ledger{boot: 1, epoch: 1, minPages: none, minInflight: none, dbPages: none, window: 2, durable: 1, all: 1, shipperEpoch: 1}
	s.s = [2]shipper{{pc: sRest, term: 1, proof: 1, mark: none}, {mark: none}}
	if m.empty {
		s.s[0].pc = sClaim
		return s
	}
	s.st.head, s.st.replica, s.st.commit, s.nonces = 2, file, 1, 2
	s.st.names[1], s.st.names[2] = 1, 2
	s.led.txid, s.led.dbPages, s.led.head, s.led.allDone = 2, m.pages, 2, 1
	s.led.attempts[0] = attempt{2, 2}
	s.led.seen, s.led.seenSet = s.db.index, true
	for p := range m.pages {
		s.led.sums[p] = 1
	}
	s.sync(m)
	return s
}

func hash(s *state) uint64 {
	return xxh3.Hash(unsafe.Slice((*byte)(unsafe.Pointer(s)), unsafe.Sizeof(*s)))
}

// link tells how a state was reached first.
type link struct {
	from uint32
	what action
	arg  uint8
}

// result is what a search has found.
type result struct {
	states, depth int
	whole         bool   // all states within the bounds were seen
	wrong         string // what is wrong, with the last state of the trace
	trace         []string
}

// search visits every state within the bounds, the nearest first, up to a number of them.
func (m *model) search(most int) (r result) {
	first := m.start()
	seen := map[uint64]struct{}{hash(&first): {}}
	links := []link{{}}
	level, levelIDs := []state{first}, []uint32{0}
	for len(level) > 0 {
		var next []state
		var nextIDs []uint32
		for i := range level {
			from, id := &level[i], levelIDs[i]
			m.emit = func(a action, arg uint8, to *state) {
				if r.wrong != "" {
					return
				}
				h := hash(to)
				if _, had := seen[h]; had && m.wrong == "" {
					return
				}
				m.check(from, to)
				seen[h] = struct{}{}
				links = append(links, link{id, a, arg})
				if m.wrong != "" {
					r.wrong = m.wrong
					return
				}
				next, nextIDs = append(next, *to), append(nextIDs, uint32(len(links)-1))
			}
			m.steps(from)
			if r.wrong != "" || len(links) >= most {
				r.states = len(links)
				if r.wrong != "" {
					r.depth++
					r.trace = m.trace(links)
				}
				return r
			}
		}
		r.depth++
		level, levelIDs = next, nextIDs
	}
	r.depth--
	r.states, r.whole = len(links), true
	return r
}

// trace walks from the start to the newest state.
func (m *model) trace(links []link) (lines []string) {
	var path []link
	for at := links[len(links)-1]; at.what != aStart; at = links[at.from] {
		path = append(path, at)
	}
	s := m.start()
	lines = append(lines, fmt.Sprintf("%-60s %v", describe(aStart, 0), &s))
	for i := len(path) - 1; i >= 0; i-- {
		want := path[i]
		var found []state
		m.emit = func(a action, arg uint8, to *state) {
			if a == want.what && arg == want.arg {
				found = append(found, *to)
			}
		}
		m.steps(&s)
		// A power loss has many outcomes of one name: the one that leads on.
		to := found[0]
		for _, f := range found[1:] {
			if i > 0 && !m.leads(&to, path[:i]) && m.leads(&f, path[:i]) {
				to = f
			}
		}
		s = to
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%-60s %v", describe(want.what, want.arg), &s), " "))
	}
	return lines
}

// leads reports whether the rest of a path, the last step first, is open from a state.
func (m *model) leads(s *state, path []link) bool {
	if len(path) == 0 {
		return m.wrong != ""
	}
	want := path[len(path)-1]
	var found []state
	var bad bool
	m.emit = func(a action, arg uint8, to *state) {
		if a == want.what && arg == want.arg {
			found = append(found, *to)
			m.check(s, to)
			bad = bad || m.wrong != ""
		}
	}
	from := *s
	m.steps(&from)
	if len(path) == 1 {
		return bad
	}
	for _, f := range found {
		if m.leads(&f, path[:len(path)-1]) {
			return true
		}
	}
	return false
}

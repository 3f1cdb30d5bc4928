package main

// apply is a request that has reached the store, for a name that is free.
func (m *model) apply(t *state, o *object) {
	st := &t.st
	if st.names[o.txid] != 0 {
		m.fail("object %d is written over", o.txid)
	}
	st.names[o.txid] = o.nonce
	switch {
	case o.txid <= st.head && st.foreign:
		st.under = true
		return
	case o.txid != st.head+1:
		m.fail("object %d is put after object %d", o.txid, st.head)
	case st.foreign:
		m.fail("object %d goes on from another machine's", o.txid)
	}
	st.head = o.txid
	for p := uint8(1); p <= maxPages; p++ {
		if o.pages.has(p) {
			st.replica.value[p-1] = o.value[p-1]
		}
	}
	st.replica.resize(o.state.pages)
	st.commit = o.commit
	if st.replica != o.state {
		m.fail("the store replays to %v, but object %d was read from %v", st.replica, o.txid, o.state)
	}
}

// arrive lets requests reach the store that their sender has given up.
func (m *model) arrive(s *state) {
	for i, o := range s.st.late {
		if o.txid == 0 {
			continue
		}
		m.do(aArrive, o.txid, func(t *state) {
			t.st.late[i] = object{}
			if t.st.names[o.txid] == 0 || m.without&createOnly != 0 {
				m.apply(t, &o)
			}
			t.sortLate()
		})
	}
}

// sortLate keeps what is under way in one order.
func (t *state) sortLate() {
	l := &t.st.late
	if l[0].txid == 0 || l[1].txid != 0 && l[1].nonce < l[0].nonce {
		l[0], l[1] = l[1], l[0]
	}
}

// givesUp leaves a request under way that nobody waits for any more.
func (t *state) givesUp(o object) {
	t.left[lates]--
	for i := range t.st.late {
		if t.st.late[i].txid == 0 {
			t.st.late[i] = o
			t.sortLate()
			return
		}
	}
	panic("more late requests than room")
}

// machineSteps are another machine's: it adds to the prefix, and its merging removes
// all objects of level 0 but the newest once they are old. Time passes by half a
// retention of level 0.
func (m *model) machineSteps(s *state) {
	if s.left[machines] > 0 {
		m.do(aMachine, s.st.head+1, func(t *state) {
			t.left[machines]--
			if !t.st.foreign {
				t.st.age = 0
			}
			t.st.foreign = true
			t.st.head++
			if t.st.names[t.st.head] != 0 {
				m.fail("object %d is written over", t.st.head)
			}
			t.st.names[t.st.head] = others | t.left[machines]
		})
	}
	if s.st.foreign && s.st.age >= 2 {
		m.do(aMerge, s.st.head, func(t *state) {
			for i := range t.st.names[:t.st.head] {
				t.st.names[i] = 0
			}
		})
	}
	if s.left[ticks] > 0 {
		m.do(aTick, 0, func(t *state) {
			t.left[ticks]--
			for i := range t.s {
				if t.s[i].proof > 0 {
					t.s[i].proof = min(t.s[i].proof+1, 4)
				}
			}
			if t.st.foreign {
				t.st.age = min(t.st.age+1, 3)
			}
		})
	}
}

package shipper

// pageSet is a set of page numbers: one bit per page.
type pageSet []uint64

func (s pageSet) has(p uint32) bool {
	w := int(p / 64)
	return w < len(s) && s[w]&(1<<(p%64)) != 0
}

func (s *pageSet) set(p uint32) {
	w := int(p / 64)
	if w >= len(*s) {
		*s = append(*s, make([]uint64, w+1-len(*s))...)
	}
	(*s)[w] |= 1 << (p % 64)
}

func (s pageSet) forget(p uint32) {
	if w := int(p / 64); w < len(s) {
		s[w] &^= 1 << (p % 64)
	}
}

func (s pageSet) forgetAbove(n uint32) {
	for p := n + 1; int(p/64) < len(s); p++ {
		s.forget(p)
	}
}

// empty reports that no page is in the set.
func (s pageSet) empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

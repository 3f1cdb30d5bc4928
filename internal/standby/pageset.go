package standby

// pageSet is a set of page numbers. Its memory is in proportion to what was
// added, not to the largest number.
type pageSet map[uint32]*[1024]uint64

// add reports that a number was not in the set.
func (s *pageSet) add(p uint32) bool {
	if *s == nil {
		*s = pageSet{}
	}
	chunk := (*s)[p>>16]
	if chunk == nil {
		chunk = new([1024]uint64)
		(*s)[p>>16] = chunk
	}
	word, bit := &chunk[p&0xffff>>6], uint64(1)<<(p&63)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

func (s pageSet) has(p uint32) bool {
	chunk := s[p>>16]
	return chunk != nil && chunk[p&0xffff>>6]&(1<<(p&63)) != 0
}

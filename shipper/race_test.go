//go:build race

package shipper

import "golang.org/x/sys/unix"

// underRace: the race detector makes every step some twenty times slower.
const underRace = true

// killProt is the protection of a page at whose next use the Shipper is
// killed. Under the race detector an atomic write is made by the detector's C
// code, on another stack, where a fault cannot become a panic and ends the
// process; what the runtime does before that is a read, on the goroutine's own
// stack. So a page is made unreadable too, and the kill comes at the next read
// or write.
const killProt = unix.PROT_NONE

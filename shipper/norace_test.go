//go:build !race

package shipper

import "golang.org/x/sys/unix"

const underRace = false

// killProt is the protection of a page at whose next write the Shipper is
// killed.
const killProt = unix.PROT_READ

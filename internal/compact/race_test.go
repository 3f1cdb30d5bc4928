//go:build race

package compact

// The race detector makes the work on many bytes forty times slower.
func init() { underRace = true }

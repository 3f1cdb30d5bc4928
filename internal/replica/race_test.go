//go:build race

package replica

func init() { underRace = true }

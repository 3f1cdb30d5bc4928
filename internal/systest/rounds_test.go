package systest

import (
	"os"
	"strconv"
	"testing"
)

// rounds is how often a test repeats what it does at random: n, or what WALFERRY_TEST_ROUNDS says.
func rounds(t testing.TB, n int) int {
	t.Helper()
	s := os.Getenv("WALFERRY_TEST_ROUNDS")
	if s == "" {
		return n
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

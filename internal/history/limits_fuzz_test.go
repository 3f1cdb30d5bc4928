package history

import "testing"

// FuzzParseLimits takes any retention: no limit that it gives is negative.
func FuzzParseLimits(f *testing.F) {
	for _, s := range []string{"24h", "50GB,20x", "7d,100p,1GiB", "9223372036854775807p", "1e400x", "NaNx", "-1h", ",", "0", "99999999999999999999GB", "Infx"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLimits(s)
		if err == nil && (l.Age < 0 || l.Bytes < 0 || !(l.Times >= 0) || l.Points < 0) {
			t.Fatalf("%q: %+v", s, l)
		}
	})
}

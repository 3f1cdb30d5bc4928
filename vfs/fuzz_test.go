package vfs_test

import (
	"math"
	"strings"
	"testing"
)

// FuzzFunctions calls walferry's SQL functions with values of any kind.
func FuzzFunctions(f *testing.F) {
	f.Add("0123456789ab-1", "main", int64(0), 0.0, []byte("x"))
	f.Add("0123456789ab-99999999999999999999", "temp", int64(math.MaxInt64), math.NaN(), []byte{0})
	f.Add("ffffffffffff-18446744073709551615", "", int64(math.MinInt64), math.Inf(-1), []byte(nil))
	f.Add("", "nobody", int64(-1), 1e300, []byte("a\x00b"))
	p := newPlace(f, "&interval=10ms")
	c := p.open()
	c.exec("CREATE TABLE t(v)")
	c.exec("ATTACH ':memory:' AS other")
	f.Cleanup(c.close)
	f.Fuzz(func(t *testing.T, text, schema string, n int64, r float64, b []byte) {
		values := []any{text, schema, n % 3, r, b, nil}
		for _, v := range values {
			for _, call := range []string{"walferry_token(?)", "walferry_txid(?)", "walferry_wait(?, 0)", "walferry_wait('0123456789ab-1', 0, ?)", "walferry_mark('m', ?)"} {
				_, _ = c.query("SELECT "+call, v)
			}
			// Of the values that are waited for only those that are over at once.
			if n <= 0 {
				_, _ = c.query("SELECT walferry_wait(?, ?)", v, n)
				_, _ = c.query("SELECT walferry_wait(?, ?, ?)", v, n, schema)
			}
		}
		if !strings.ContainsAny(text, "\x00") && len(text) > 200 {
			if _, err := c.query("SELECT walferry_mark(?)", text); err == nil {
				t.Fatalf("a mark of %d bytes", len(text))
			}
		}
		_, _ = c.query("SELECT walferry_mark(?)", b)
		if got, err := c.query("SELECT count(*) FROM t"); got != "0" || err != nil {
			t.Fatal(got, err)
		}
	})
}

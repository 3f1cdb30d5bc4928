package history_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/history"
)

func TestParseLimits(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]struct {
		history.Limits
		text string
	}{
		"72h":                  {history.Limits{Age: 72 * time.Hour}, "72h"},
		"90m":                  {history.Limits{Age: 90 * time.Minute}, "1h30m"},
		"1h30m":                {history.Limits{Age: 90 * time.Minute}, "1h30m"},
		"45s":                  {history.Limits{Age: 45 * time.Second}, "45s"},
		"10m":                  {history.Limits{Age: 10 * time.Minute}, "10m"},
		"10h":                  {history.Limits{Age: 10 * time.Hour}, "10h"},
		"1.5s":                 {history.Limits{Age: 1500 * time.Millisecond}, "1.5s"},
		"7d":                   {history.Limits{Age: 7 * day}, "168h"},
		"1.5d":                 {history.Limits{Age: 36 * time.Hour}, "36h"},
		"2w":                   {history.Limits{Age: 14 * day}, "336h"},
		"2 W":                  {history.Limits{Age: 14 * day}, "336h"},
		"50GB":                 {history.Limits{Bytes: 50e9}, "50GB"},
		"50gib":                {history.Limits{Bytes: 50 << 30}, "50GiB"},
		"1.5 TB":               {history.Limits{Bytes: 15e11}, "1500GB"},
		"500MB":                {history.Limits{Bytes: 5e8}, "500MB"},
		"123B":                 {history.Limits{Bytes: 123}, "123B"},
		"20x":                  {history.Limits{Times: 20}, "20x"},
		"1.5X":                 {history.Limits{Times: 1.5}, "1.5x"},
		"100p":                 {history.Limits{Points: 100}, "100p"},
		"72h, 50GB ,20x,100p":  {history.Limits{Age: 72 * time.Hour, Bytes: 50e9, Times: 20, Points: 100}, "72h,50GB,20x,100p"},
		"100p,20x,1KiB,1000ms": {history.Limits{Age: time.Second, Bytes: 1024, Times: 20, Points: 100}, "1s,1KiB,20x,100p"},
	} {
		got, err := history.ParseLimits(s)
		if err != nil || got != want.Limits || got.String() != want.text {
			t.Errorf("%q: %+v, %q, %v, want %+v, %q", s, got, got.String(), err, want.Limits, want.text)
		}
		if again, err := history.ParseLimits(got.String()); err != nil || again != got {
			t.Errorf("%q: %+v, %v", got.String(), again, err)
		}
	}
	for s, part := range map[string]string{
		"": `""`, ",": `""`, "72h,": `""`, "72": `"72"`, "h": `"h"`, "-1h": `"-1h"`, "0s": `"0s"`, "0d": `"0d"`, "0GB": `"0GB"`, "0.1B": `"0.1B"`, "0p": `"0p"`,
		"0x": `"0x"`, "0.5x": `"0.5x"`, "1.5p": `"1.5p"`, "5y": `"5y"`, "5G": `"5G"`, "50 GB GB": `"50 GB GB"`, "1e3p": `"1e3p"`, "NaNx": `"NaNx"`, "infx": `"infx"`,
		"72h,3d": `"3d"`, "1GB,2MB": `"2MB"`, "2x,3x": `"3x"`, "1p,2p": `"2p"`, "99999PB": `"99999PB"`, "999999d": `"999999d"`, "9999999999p": `"9999999999p"`,
		"1h,oops": `"oops"`, "999999999999999999999x": "x",
	} {
		got, err := history.ParseLimits(s)
		if !errors.Is(err, history.ErrLimits) || got != (history.Limits{}) || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "20x") {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	if s := (history.Limits{}).String(); s != "" {
		t.Errorf("no limits are %q", s)
	}
}

package history_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/walferry/walferry/internal/history"
)

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("here", 2*60*60)
	now := time.Date(2026, 3, 1, 8, 15, 30, 500, zone)
	for s, want := range map[string]string{ // in UTC
		"now":                           "2026-03-01T06:15:30.0000005Z",
		" Now ":                         "2026-03-01T06:15:30.0000005Z",
		"2026-02-28T14:30:00Z":          "2026-02-28T14:30:00Z",
		"2026-02-28t14:30:00z":          "2026-02-28T14:30:00Z",
		"2026-02-28T14:30:00.25Z":       "2026-02-28T14:30:00.25Z",
		"2026-02-28T14:30:00.123456789": "2026-02-28T12:30:00.123456789Z",
		"2026-02-28T14:30:00+05:30":     "2026-02-28T09:00:00Z",
		"2026-02-28T14:30:00-0800":      "2026-02-28T22:30:00Z",
		"2026-02-28 14:30:00 +01:00":    "2026-02-28T13:30:00Z",
		"2026-02-28 14:30:00 UTC":       "2026-02-28T14:30:00Z",
		"2026-02-28  14:30 utc":         "2026-02-28T14:30:00Z",
		"2026-02-28T14:30":              "2026-02-28T12:30:00Z",
		"2026-02-28 14:30":              "2026-02-28T12:30:00Z",
		"2026-02-28":                    "2026-02-27T22:00:00Z",
		"today":                         "2026-02-28T22:00:00Z",
		"today 09:00":                   "2026-03-01T07:00:00Z",
		"Today at 9:00:30":              "2026-03-01T07:00:30Z",
		"yesterday":                     "2026-02-27T22:00:00Z",
		"yesterday 14:30":               "2026-02-28T12:30:00Z",
		"yesterday at 00:00":            "2026-02-27T22:00:00Z",
		"0 seconds ago":                 "2026-03-01T06:15:30.0000005Z",
		"1 second ago":                  "2026-03-01T06:15:29.0000005Z",
		"30s ago":                       "2026-03-01T06:15:00.0000005Z",
		"5m ago":                        "2026-03-01T06:10:30.0000005Z",
		"5 minutes ago":                 "2026-03-01T06:10:30.0000005Z",
		"5  MIN  ago":                   "2026-03-01T06:10:30.0000005Z",
		"2h ago":                        "2026-03-01T04:15:30.0000005Z",
		"an hour ago":                   "2026-03-01T05:15:30.0000005Z",
		"a day ago":                     "2026-02-28T06:15:30.0000005Z",
		"1h30m ago":                     "2026-03-01T04:45:30.0000005Z",
		"1 day, 2 hours ago":            "2026-02-28T04:15:30.0000005Z",
		"3 days ago":                    "2026-02-26T06:15:30.0000005Z",
		"2 weeks ago":                   "2026-02-15T06:15:30.0000005Z",
	} {
		got, err := history.ParseTime(s, now)
		if err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %s, %v, want %s", s, got.UTC().Format(time.RFC3339Nano), err, want)
		}
	}
	for _, s := range []string{"", " ", "ago", "5 ago", "minutes ago", "5 parsecs ago", "-5m ago", "5m", "five minutes ago", "99999999999 s ago", "999999999 weeks ago",
		"999999999 d 999999999 d ago", "2026-13-01", "2026-02-30", "2026-02-28T25:00:00Z", "28.02.2026", "02/28/2026", "2026-02-28T14", "tomorrow", "yesterday 25:00",
		"yesterday 14", "yesterday at", "today 9:61", "2026-02-28T14:30:00 CET", "1772347530", "now ago", "2026-02-28T14:30:00Z ago", "5m ago ago", "\x00", strings.Repeat("9", 1000)} {
		got, err := history.ParseTime(s, now)
		if !errors.Is(err, history.ErrTime) || !strings.Contains(err.Error(), "yesterday 14:30") {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

// A day ago by the calendar is not 24 hours ago when the clocks change.
func TestDaysByTheCalendar(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	now := time.Date(2026, 3, 29, 12, 0, 0, 0, berlin) // summer time began at 2
	for s, want := range map[string]string{"yesterday 12:00": "2026-03-28T12:00:00+01:00", "today 01:00": "2026-03-29T01:00:00+01:00", "24 hours ago": "2026-03-28T11:00:00+01:00"} {
		if got, err := history.ParseTime(s, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v, want %s", s, got, err, want)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	f.Add("5 minutes ago")
	f.Add("2026-02-28 14:30:00.5 +01:00")
	f.Add("yesterday at 9:00")
	f.Fuzz(func(t *testing.T, s string) {
		now := time.Now()
		if got, err := history.ParseTime(s, now); err != nil && !errors.Is(err, history.ErrTime) || strings.Contains(s, "ago") && got.After(now) {
			t.Errorf("%v, %v", got, err)
		}
	})
}

package history

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ErrTime is wrapped by ParseTime.
var ErrTime = errors.New("not a time")

// timeForms is what ParseTime's error lists.
const timeForms = `allowed are "2026-01-31T14:30:00Z" (RFC 3339; without a zone it is local time), "2026-01-31 14:30", "2026-01-31", ` +
	`"now", "5 minutes ago", "2h ago" (seconds, minutes, hours, days, weeks), "today 09:00" and "yesterday 14:30"`

// layouts are those of an absolute time, whose seconds may have a fraction.
var layouts = []string{
	"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04Z07:00",
	"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02",
}

var (
	agoForm  = regexp.MustCompile(`^((?:(?:\d{1,9}|an?\b) *[a-z]+[ ,]*)+) ago$`)
	agoPart  = regexp.MustCompile(`(\d+|an?\b) *([a-z]+)`)
	dayForm  = regexp.MustCompile(`^(today|yesterday)(?:(?: at)? (\d{1,2}:\d{2}(?::\d{2})?))?$`)
	zoneForm = regexp.MustCompile(`^([0-9-]+)[t ]+([0-9:.]+) *(z|utc|gmt|[+-]\d\d:?\d\d)?$`)
)

// ParseTime reads a moment as people write it, in now's time zone where it names none:
//
//	2026-01-31T14:30:00.5+01:00   2026-01-31 14:30   2026-01-31
//	now   5 minutes ago   1h30m ago   2 days ago
//	today 09:00   yesterday 14:30
//
// A day without a time is its beginning; a day of "2 days ago" has 24 hours. The error
// wraps ErrTime and lists what is allowed.
func ParseTime(s string, now time.Time) (time.Time, error) {
	text := strings.ToLower(strings.Join(strings.Fields(s), " "))
	if text == "now" {
		return now, nil
	}
	if m := agoForm.FindStringSubmatch(text); m != nil {
		if d, ok := parseAgo(m[1]); ok {
			return now.Add(-d), nil
		}
		return time.Time{}, badTime(s)
	}
	if m := dayForm.FindStringSubmatch(text); m != nil {
		return parseDay(s, m[1] == "yesterday", m[2], now)
	}
	if m := zoneForm.FindStringSubmatch(text); m != nil {
		zone := m[3]
		if zone == "z" || zone == "utc" || zone == "gmt" {
			zone = "Z"
		}
		text = m[1] + "T" + m[2] + zone
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, badTime(s)
}

func badTime(s string) error { return fmt.Errorf("%w: %q: %s", ErrTime, s, timeForms) }

// parseAgo adds up "1h 30 minutes".
func parseAgo(s string) (sum time.Duration, ok bool) {
	for _, m := range agoPart.FindAllStringSubmatch(s, -1) {
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			n = 1 // "an hour"
		}
		unit := unitOf(m[2])
		if unit == 0 || n > int64((1<<62)/unit) || sum+time.Duration(n)*unit < sum {
			return 0, false
		}
		sum += time.Duration(n) * unit
	}
	return sum, true
}

func unitOf(s string) time.Duration {
	switch s {
	case "s", "sec", "secs", "second", "seconds":
		return time.Second
	case "m", "min", "mins", "minute", "minutes":
		return time.Minute
	case "h", "hr", "hrs", "hour", "hours":
		return time.Hour
	case "d", "day", "days":
		return 24 * time.Hour
	case "w", "week", "weeks":
		return 7 * 24 * time.Hour
	}
	return 0
}

func parseDay(s string, yesterday bool, clock string, now time.Time) (time.Time, error) {
	var at time.Time
	if clock != "" {
		var err error
		if at, err = time.Parse("15:04:05", clock); err != nil {
			if at, err = time.Parse("15:04", clock); err != nil {
				return time.Time{}, badTime(s)
			}
		}
	}
	y, m, d := now.Date()
	if yesterday {
		d--
	}
	return time.Date(y, m, d, at.Hour(), at.Minute(), at.Second(), 0, now.Location()), nil
}

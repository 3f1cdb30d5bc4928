package history

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ErrLimits is wrapped by ParseLimits.
var ErrLimits = errors.New("not a retention")

// Limits bound a history. Each that is not zero must hold.
type Limits struct {
	Age    time.Duration // any moment of this long ago can be restored
	Bytes  int64         // of all objects
	Times  float64       // the same, in multiples of the database's size
	Points int           // restore points, without the level-0 files that are yet to be merged
}

// limitForms is what ParseLimits' error lists.
const limitForms = `allowed are a time ("72h", "7d", "2w"), a size ("500MB", "50GiB"), a multiple of the database's size ("20x") ` +
	`and a number of restore points ("100p"), each at most once, with commas between them`

var limitForm = regexp.MustCompile(`^(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]+)$`)

var (
	dayUnits  = map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	byteUnits = map[string]float64{
		"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50,
	}
)

// ParseLimits reads limits as "72h", "50GB", "20x", "100p" or several of them with
// commas between. The error wraps ErrLimits, names the part and lists what is allowed.
func ParseLimits(s string) (Limits, error) {
	var l Limits
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		one, err := parseLimit(part)
		if err == nil {
			err = l.add(one)
		}
		if err != nil {
			return Limits{}, fmt.Errorf("%w: %q: %w: %s", ErrLimits, part, err, limitForms)
		}
	}
	return l, nil
}

func parseLimit(part string) (l Limits, err error) {
	if d, err := time.ParseDuration(part); err == nil {
		if d <= 0 {
			return l, errors.New("it is not above 0")
		}
		return Limits{Age: d}, nil
	}
	m := limitForm.FindStringSubmatch(part)
	if m == nil {
		return l, errors.New("it is not understood")
	}
	n, err := strconv.ParseFloat(m[1], 64)
	unit := strings.ToLower(m[2])
	bytes, isBytes := byteUnits[unit]
	days, isDays := dayUnits[unit]
	switch {
	case err != nil:
		return l, errors.New("it is not understood")
	case isBytes && n*bytes < 1, isDays && n*float64(days) < 1, unit == "p" && n == 0:
		return l, errors.New("it is not above 0")
	case isBytes && n*bytes >= math.MaxInt64, isDays && n*float64(days) >= math.MaxInt64, unit == "p" && n > math.MaxInt32:
		return l, errors.New("it is too large")
	case isBytes:
		l.Bytes = int64(n * bytes)
	case isDays:
		l.Age = time.Duration(n * float64(days))
	case unit == "x" && n < 1:
		return l, errors.New("less than the database's own size cannot hold")
	case unit == "x":
		l.Times = n
	case unit == "p" && n == math.Trunc(n):
		l.Points = int(n)
	case unit == "p":
		return l, errors.New("it is not a whole number")
	default:
		return l, fmt.Errorf("%q is no unit", m[2])
	}
	return l, nil
}

// add takes one limit more.
func (l *Limits) add(one Limits) error {
	twice := errors.New("there are two of its kind")
	switch {
	case one.Age != 0 && l.Age != 0, one.Bytes != 0 && l.Bytes != 0, one.Times != 0 && l.Times != 0, one.Points != 0 && l.Points != 0:
		return twice
	}
	l.Age += one.Age
	l.Bytes += one.Bytes
	l.Times += one.Times
	l.Points += one.Points
	return nil
}

// String is what ParseLimits reads; empty for no limit.
func (l Limits) String() string {
	var parts []string
	if l.Age > 0 {
		s := l.Age.String()
		s = strings.TrimSuffix(s, "0s")
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		if s == "" || !strings.ContainsAny(s[len(s)-1:], "smh") {
			s = l.Age.String()
		}
		parts = append(parts, s)
	}
	if l.Bytes > 0 {
		parts = append(parts, formatBytes(l.Bytes))
	}
	if l.Times > 0 {
		parts = append(parts, strconv.FormatFloat(l.Times, 'f', -1, 64)+"x")
	}
	if l.Points > 0 {
		parts = append(parts, fmt.Sprintf("%dp", l.Points))
	}
	return strings.Join(parts, ",")
}

// formatBytes takes the largest unit that divides n.
func formatBytes(n int64) string {
	for _, u := range []string{"PiB", "PB", "TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB"} {
		if size := int64(byteUnits[strings.ToLower(u)]); n%size == 0 {
			return fmt.Sprintf("%d%s", n/size, u)
		}
	}
	return fmt.Sprintf("%dB", n)
}

package objstore

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/superfly/ltx"
)

// Bounds of a mark's name, in bytes.
const (
	// MaxMarkName is the longest name.
	MaxMarkName = 200

	// maxMarkPart is what a file system leaves for the escaped name: 255 less
	// the TXID, the time and two hyphens.
	maxMarkPart = 255 - 16 - 13 - 2
)

// ErrMark is wrapped by Mark.Validate.
var ErrMark = errors.New("not a mark")

// Mark names a point of a replica's history. Marks lie beside the levels, where
// Litestream does not look, and all that they say is in their keys, so that one
// listing tells of all:
//
//	<prefix>/marks/000000000000002a-1700000000123-before migration
//	               TXID             ms            name, with %XX for '/', '%' and what is not printable
//
// The body says the same in JSON, for people who come across it.
type Mark struct {
	Name string    // need not be unique
	TXID ltx.TXID  // the state that it names
	Time time.Time // when it was made; kept in whole milliseconds
}

func (m Mark) String() string { return fmt.Sprintf("mark %q at %s", m.Name, m.TXID) }

// Validate reports why a mark cannot be stored. The error wraps ErrMark.
func (m Mark) Validate() error {
	switch {
	case m.Name == "":
		return fmt.Errorf("%w: it has no name", ErrMark)
	case len(m.Name) > MaxMarkName:
		return fmt.Errorf("%w: its name has %d bytes: at most %d are allowed", ErrMark, len(m.Name), MaxMarkName)
	case !utf8.ValidString(m.Name):
		return fmt.Errorf("%w: its name %q is not UTF-8", ErrMark, m.Name)
	case strings.ContainsFunc(m.Name, unicode.IsControl):
		return fmt.Errorf("%w: its name %q has a control character: remove it", ErrMark, m.Name)
	case len(escapeMark(m.Name)) > maxMarkPart:
		return fmt.Errorf("%w: its name %q has too many characters like '/' and '%%', which take three bytes each: shorten it", ErrMark, m.Name)
	case m.TXID == 0:
		return fmt.Errorf("%w: %q has no TXID", ErrMark, m.Name)
	case m.Time.UnixMilli() < 0 || m.Time.Year() > 9999:
		return fmt.Errorf("%w: %q has the time %v", ErrMark, m.Name, m.Time)
	}
	return nil
}

// Key is the last element of the path under which the mark is stored.
func (m Mark) Key() string {
	return fmt.Sprintf("%s-%013d-%s", m.TXID, m.Time.UnixMilli(), escapeMark(m.Name))
}

// parseMark takes the keys that Mark.Key makes and no others.
func parseMark(key string) (Mark, bool) {
	id, rest, _ := strings.Cut(key, "-")
	ms, name, _ := strings.Cut(rest, "-")
	txid, err := ltx.ParseTXID(id)
	if err != nil {
		return Mark{}, false
	}
	t, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		return Mark{}, false
	}
	if name, err = url.PathUnescape(name); err != nil {
		return Mark{}, false
	}
	m := Mark{Name: name, TXID: txid, Time: time.UnixMilli(t).UTC()}
	return m, m.Validate() == nil && m.Key() == key
}

// escapeMark leaves what people write as it is, so that names stay legible, and
// short enough, in listings of a bucket.
func escapeMark(name string) string {
	var b strings.Builder
	last := len(name) - 1
	for i, r := range name {
		switch {
		case r == ' ' && i != last: // one at the end is lost too easily
		case r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("!'()*,-.:=@_", r)):
		case r >= utf8.RuneSelf && r != utf8.RuneError && unicode.IsPrint(r):
		default:
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// body is a mark for people.
func (m Mark) body() *bytes.Reader {
	b, _ := json.Marshal(struct {
		Name string    `json:"name"`
		TXID string    `json:"txid"`
		Time time.Time `json:"time"`
	}{m.Name, m.TXID.String(), m.Time.UTC().Truncate(time.Millisecond)}) // nothing in it that cannot be encoded
	return bytes.NewReader(append(b, '\n'))
}

func sortMarks(marks []Mark) {
	slices.SortFunc(marks, func(a, b Mark) int {
		return cmp.Or(cmp.Compare(a.TXID, b.TXID), a.Time.Compare(b.Time), cmp.Compare(a.Name, b.Name))
	})
}

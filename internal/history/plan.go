package history

import (
	"fmt"

	"github.com/superfly/ltx"

	"github.com/walferry/walferry/internal/objstore"
)

// Plan is what to apply, in order, to get one state of the database.
type Plan struct {
	// Files are never none. One whose Min is 1 stands first and nowhere else.
	Files []objstore.Object

	// Head is the last transaction's own level-0 object, which may carry the
	// database's checksum, or the last of Files where compaction has removed that.
	Head objstore.Object
}

// TXID is the state that the plan leads to.
func (p Plan) TXID() ltx.TXID { return p.Files[len(p.Files)-1].Max }

// Size is how much there is to download, in bytes.
func (p Plan) Size() (n int64) {
	for _, o := range p.Files {
		n += o.Size
	}
	return n
}

// Plan returns the way to a state that downloads least, where a request counts as
// 64 KiB. TXID 0 is the newest that any object has. The error wraps ErrNothing, ErrGap or ErrNoPoint
// and says what can be restored instead.
func (h *History) Plan(txid ltx.TXID) (Plan, error) {
	all := h.Objects()
	if len(all) == 0 {
		return Plan{}, ErrNothing
	}
	ways := findPaths(all, download)
	want := txid
	if want == 0 {
		want = h.highest()
	}
	i, ok := ways.find(want)
	if !ok {
		return Plan{}, h.unreachable(ways, all, txid)
	}
	p := Plan{Files: ways.to(i)}
	p.Head = p.Files[len(p.Files)-1]
	for _, o := range h.Levels[0] {
		if o.Min == want && o.Max == want {
			p.Head = o
		}
	}
	return p, nil
}

// unreachable says why there is no way to a TXID; 0 is the newest.
func (h *History) unreachable(ways paths, all []objstore.Object, txid ltx.TXID) error {
	if len(ways.stops) == 0 {
		return fmt.Errorf("%w: there is no snapshot, and TXIDs %s to %s are missing; nothing can be restored",
			ErrGap, ltx.TXID(1), lowest(all).Min-1)
	}
	highest, oldest, newest := h.highest(), ways.stops[0].txid, ways.stops[len(ways.stops)-1].txid
	if txid > highest {
		return fmt.Errorf("%w: TXID %s is not in the replica; the newest that can be restored is %s", ErrNoPoint, txid, newest)
	}
	if txid == 0 {
		txid = highest
	}
	i, _ := ways.find(txid) // the first stop behind
	if i == 0 {
		return fmt.Errorf("%w: TXID %s is older than the history that is kept; the oldest that can be restored is %s", ErrNoPoint, txid, oldest)
	}
	before, after := ways.stops[i-1].txid, ltx.TXID(0)
	if i < len(ways.stops) {
		after = ways.stops[i].txid
	}
	g, ok := ways.gapBefore(all, txid)
	switch {
	case !ok:
		return fmt.Errorf("%w: TXID %s lies inside merged files; the nearest that can be restored are %s and %s", ErrNoPoint, txid, before, after)
	case after == 0:
		return fmt.Errorf("%w: TXIDs %s to %s are missing; the newest that can be restored is %s", ErrGap, g.From, g.To, before)
	}
	return fmt.Errorf("%w: TXIDs %s to %s are missing; what can be restored ends before them at %s and goes on at %s", ErrGap, g.From, g.To, before, after)
}

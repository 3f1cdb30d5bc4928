package shipper

import (
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"github.com/walferry/walferry/internal/ledger"
)

// State says what the shipper of a database is doing. In those from StateFenced
// on nothing ships until somebody does something about the cause; cext/sql.c
// knows the number.
type State uint32

// States, as they stand in the ledger.
const (
	StateStarting    State = 0 // the store was not reached yet
	StateShipping    State = 1
	StateUnreachable State = 2 // the store does not answer; tried again by itself
	StateRefused     State = 3 // the store says no: bucket, credentials; tried again by itself
	StateNotWAL      State = 4 // the database is not in WAL mode
	StateFailing     State = 5 // the database or the ledger cannot be read or written; tried again
	StateBroken      State = 6 // an internal error has ended the shipper; another process may go on

	StateFenced    State = 16 // another writer has added to the prefix
	StateUnclaimed State = 17 // the prefix holds something that is not provably ours
	StatePageSize  State = 18 // the database's page size is not the prefix's
)

var stateNames = map[State]string{
	StateStarting: "starting", StateShipping: "shipping", StateUnreachable: "unreachable",
	StateRefused: "refused", StateNotWAL: "not_wal", StateFailing: "failing", StateBroken: "broken",
	StateFenced: "fenced", StateUnclaimed: "unclaimed", StatePageSize: "page_size_changed",
}

func (s State) String() string {
	if name, ok := stateNames[s]; ok {
		return name
	}
	return "unknown"
}

// Stuck reports whether the state does not end by itself.
func (s State) Stuck() bool { return s >= StateFenced }

// Status is what a ledger says of its database's replication. Times are
// milliseconds.
type Status struct {
	// State is a State's name, "stopped" where no process ships, or "off".
	State      string `json:"state"`
	Cause      string `json:"cause"`
	DatabaseID string `json:"database_id"`
	TXID       string `json:"txid"` // newest object known to be in the store; 16 hex digits
	Window     uint64 `json:"window"`
	Durable    uint64 `json:"durable"` // every commit of the windows up to this one is in the store
	LagMs      int64  `json:"lag_ms"`  // age of the oldest commit that is not in the store; 0: none
	Pending    int    `json:"pending_pages"`
	// AllPending: what changed is not known, so every page is to be compared.
	AllPending   bool   `json:"all_pending"`
	LastError    string `json:"last_error"`
	ErrorSince   string `json:"error_since"` // RFC 3339; empty without an error
	Replica      string `json:"replica"`
	IntervalMs   uint64 `json:"interval_ms"`
	Batches      uint64 `json:"batches"` // these three since the shipper opened
	Bytes        uint64 `json:"bytes"`
	Requests     uint64 `json:"requests"`
	ShipperPID   uint64 `json:"shipper_pid"` // 0: no process ships now
	HeartbeatMs  uint64 `json:"heartbeat_ms"`
	Heartbeat    string `json:"heartbeat,omitempty"`
	SnapshotTXID string `json:"snapshot_txid,omitempty"` // the newest snapshot; empty: not known
	SnapshotTime string `json:"snapshot_time,omitempty"`
	KeepError    string `json:"keep_error,omitempty"` // why merging, snapshots or retention failed last
	// Conditional: whether the store can tell two writers apart.
	Conditional string `json:"conditional_writes"`
	// Undone: TXIDs whose commits a recovery after a crash took back.
	Undone string `json:"undone,omitempty"`
}

// ReadStatus reads the status from a ledger whose Check succeeded. It may be
// called from any process at any time.
func ReadStatus(l *ledger.Ledger) Status {
	h := l.Header()
	state := State(atomic.LoadUint32(&h.State))
	s := Status{
		State:      state.String(),
		Cause:      h.Cause(),
		DatabaseID: h.ID(),
		TXID:       ltx.TXID(atomic.LoadUint64(&h.TXID)).String(),
		Window:     atomic.LoadUint64(&h.Window),
		Durable:    atomic.LoadUint64(&h.Durable),
		Pending:    l.Pending(),
		AllPending: atomic.LoadUint64(&h.All) != atomic.LoadUint64(&h.AllDone),
		LastError:  h.LastError(),
		Replica:    h.Replica(),
		IntervalMs: atomic.LoadUint64(&h.IntervalMs),
		Batches:    atomic.LoadUint64(&h.Batches),
		Bytes:      atomic.LoadUint64(&h.Bytes),
		Requests:   atomic.LoadUint64(&h.Requests),
	}
	since := atomic.LoadUint64(&h.ShipSinceMs)
	if since == 0 {
		since = atomic.LoadUint64(&h.OpenSinceMs)
	}
	// A reader of ours that finds what a program without walferry wrote begins the
	// time too, in the middle of the batch that ships it.
	if since != 0 && (s.Pending > 0 || s.AllPending) {
		s.LagMs = max(0, time.Now().UnixMilli()-int64(since))
	}
	if ms := atomic.LoadUint64(&h.ErrorSinceMs); ms != 0 {
		s.ErrorSince = rfc3339(ms)
	}
	if s.HeartbeatMs = atomic.LoadUint64(&h.HeartbeatMs); s.HeartbeatMs != 0 {
		s.Heartbeat = rfc3339(s.HeartbeatMs)
	}
	if snapshot := atomic.LoadUint64(&h.SnapshotTXID); snapshot != 0 {
		s.SnapshotTXID = ltx.TXID(snapshot).String()
		s.SnapshotTime = rfc3339(uint64(atomic.LoadInt64(&h.SnapshotMs)))
	}
	s.KeepError = h.KeepError()
	if l.Locked() {
		s.ShipperPID = atomic.LoadUint64(&h.ShipperPID)
	} else if !state.Stuck() && state != StateBroken {
		// The ledger has what the last shipper wrote before it ended.
		s.State, s.Cause = "stopped", "no process ships"
	}
	switch atomic.LoadUint32(&h.Conditional) {
	case conditionalYes:
		s.Conditional = "yes"
	case conditionalNo:
		s.Conditional = "no"
	default:
		s.Conditional = "unknown"
	}
	if last := atomic.LoadUint64(&h.UndoneLast); last != 0 {
		s.Undone = ltx.TXID(atomic.LoadUint64(&h.UndoneFirst)).String() + "-" + ltx.TXID(last).String()
	}
	return s
}

// Values of the ledger's Conditional.
const (
	conditionalYes = 1
	conditionalNo  = 2
)

func rfc3339(ms uint64) string {
	return time.UnixMilli(int64(ms)).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

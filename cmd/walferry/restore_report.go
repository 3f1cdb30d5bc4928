package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/restore"
)

// report says what a restore has done, or would do.
type report struct {
	f              *restoreFlags
	replica        string
	stdout, stderr io.Writer
}

// restoreJSON is the one object that -json prints. TXIDs are 16 hexadecimal digits,
// sizes bytes.
type restoreJSON struct {
	Replica  string `json:"replica"`
	Database string `json:"database,omitempty"`
	Restored bool   `json:"restored"`
	DryRun   bool   `json:"dry_run,omitempty"`
	Reason   string `json:"reason,omitempty"` // why nothing was restored

	TXID   string     `json:"txid,omitempty"`
	Newest string     `json:"newest_txid,omitempty"` // of the replica
	Past   bool       `json:"past"`                  // older than that, and without a ledger
	Time   *time.Time `json:"time,omitempty"`        // of the TXID's object

	Pages    uint32 `json:"pages,omitempty"`
	PageSize uint32 `json:"page_size,omitempty"`
	Size     int64  `json:"size,omitempty"`

	Downloaded int64   `json:"downloaded,omitempty"`
	Requests   int64   `json:"requests,omitempty"`
	Seconds    float64 `json:"seconds,omitempty"`
	Compared   bool    `json:"checksum_compared,omitempty"` // with the database checksum that an object carries
	Check      string  `json:"check,omitempty"`

	Delta *deltaJSON `json:"delta,omitempty"`
	Plan  *planJSON  `json:"plan,omitempty"`
}

type deltaJSON struct {
	Used   bool   `json:"used"`
	Kept   uint32 `json:"kept_pages"`
	Reason string `json:"reason,omitempty"` // why not
}

type planJSON struct {
	Size     int64        `json:"size"`
	Requests int          `json:"requests"`
	Objects  []objectJSON `json:"objects"`
}

type objectJSON struct {
	Level int    `json:"level"`
	Min   string `json:"min_txid"`
	Max   string `json:"max_txid"`
	Size  int64  `json:"size"`
}

func (s *report) encode(j restoreJSON) error {
	j.Replica, j.Database = s.replica, s.f.out
	e := json.NewEncoder(s.stdout)
	e.SetIndent("", "  ")
	return e.Encode(j)
}

// note goes beside the result, where programs that read it do not look.
func (s *report) note(format string, args ...any) {
	fmt.Fprintf(s.stderr, "note: "+format+"\n", args...)
}

// nothing says that there was nothing to do.
func (s *report) nothing(why string) error {
	if s.f.json {
		return s.encode(restoreJSON{Reason: why})
	}
	s.note("%s: nothing to do", why)
	return nil
}

func (s *report) result(r restore.Result) error {
	if r.Past {
		s.note("this is the database as of TXID %s, and %s goes on to TXID %s. So it has no ledger, and walferry will ship nothing from it to there: "+
			"give it another replica to go on from here, or open it once with takeover=1 to make it the newest state of this one", r.TXID, s.replica, r.Newest)
	}
	if r.Whole != "" {
		s.note("everything was downloaded, since %s", r.Whole)
	}
	if r.Delta && !r.Compared {
		s.note("no object carries the checksum of this database: what was downloaded is well-formed page by page, and what was kept is as the ledger says. " +
			"A restore without -delta verifies the checksum of every file; -check full looks at the database")
	}
	if s.f.json {
		j := restoreJSON{
			Restored: true, TXID: r.TXID.String(), Newest: r.Newest.String(), Past: r.Past, Time: utc(r.Time),
			Pages: r.Pages, PageSize: r.PageSize, Size: r.Size(),
			Downloaded: r.Bytes, Requests: r.Requests, Seconds: r.Duration.Seconds(), Compared: r.Compared, Check: s.f.check,
			Plan: planOf(r.Plan, r.PlanRequests),
		}
		if s.f.delta {
			j.Delta = &deltaJSON{r.Delta, r.Kept, r.Whole}
		}
		return s.encode(j)
	}
	how := fmt.Sprintf("from %d objects", len(r.Plan.Files))
	if r.Delta {
		how = fmt.Sprintf("of which %d were there, with %s downloaded instead of %s", r.Kept, size(r.Bytes), size(r.Plan.Size()))
	}
	_, err := fmt.Fprintf(s.stdout, "restored %s to %s: TXID %s, %s in %d pages of %d bytes, %s in %s; newest object of %s\n",
		s.replica, s.f.out, r.TXID, size(r.Size()), r.Pages, r.PageSize, how, round(r.Duration), r.Time.UTC().Format(time.RFC3339Nano))
	return err
}

func utc(t time.Time) *time.Time {
	t = t.UTC()
	return &t
}

func planOf(p history.Plan, requests int) *planJSON {
	j := &planJSON{Size: p.Size(), Requests: requests}
	for _, o := range p.Files {
		j.Objects = append(j.Objects, objectJSON{o.Level, o.Min.String(), o.Max.String(), o.Size})
	}
	return j
}

// plan shows what a restore would download.
func (s *report) plan(ctx context.Context, store objstore.Store, target history.Target) error {
	p, err := restore.Prepare(ctx, store, target)
	if err != nil {
		return err
	}
	h, _, err := objstore.ReadHeader(ctx, store, p.Plan.Head)
	if err != nil {
		return err
	}
	at := utc(time.UnixMilli(h.Timestamp))
	if s.f.json {
		return s.encode(restoreJSON{
			DryRun: true, TXID: p.Plan.TXID().String(), Newest: p.Newest.String(), Past: p.Past(), Time: at,
			Pages: h.Commit, PageSize: h.PageSize, Size: int64(h.Commit) * int64(h.PageSize),
			Plan: planOf(p.Plan, p.Requests()),
		})
	}
	which := "the newest"
	if p.Past() {
		which = fmt.Sprintf("the newest is %s", p.Newest)
	}
	fmt.Fprintf(s.stdout, "%s at TXID %s (%s), of %s: %s in %d pages\n\n",
		s.replica, p.Plan.TXID(), which, at.Format(time.RFC3339Nano), size(int64(h.Commit)*int64(h.PageSize)), h.Commit)
	tw := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "level\tfrom TXID\tto TXID\tsize\n")
	for _, o := range p.Plan.Files {
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\n", o.Level, o.Min, o.Max, size(o.Size))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	atMost := ""
	if s.f.delta {
		atMost = " at most, with -delta,"
	}
	_, err = fmt.Fprintf(s.stdout, "\n%d objects, %s and %d requests%s to download; nothing was written\n", len(p.Plan.Files), size(p.Plan.Size()), p.Requests(), atMost)
	return err
}

package vfs

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walferry/walferry/cext"
	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
	"github.com/walferry/walferry/internal/replica"
	"github.com/walferry/walferry/shipper"
)

// options of one database. The zero value is not useful; see defaults.
type options struct {
	replica      string
	interval     time.Duration
	closeTimeout time.Duration
	keepWAL      bool // leave the journal mode alone
	takeover     bool
	require      bool
	restore      bool // a database that is gone is brought back before it is opened
	syncFirst    bool // fdatasync the WAL before what was read from it is put
	makeDefault  bool
	keep         shipper.Keep
	invalid      error // what an Option was given that it cannot take
	store        objstore.Options
	logLevel     int
	read         replica.Options // of a replica that is read; the other fields but replica, store and logLevel are not for it
}

func defaults() options {
	o := options{interval: time.Second, closeTimeout: 10 * time.Second, logLevel: cext.LogError}
	o.read = replica.Options{Poll: time.Second, Timeout: 30 * time.Second, CacheSize: 64 << 20, CacheDirSize: 1 << 30}
	o.keep = shipper.Keep{SnapshotInterval: day, Policy: history.Policy{L0: 5 * time.Minute, Marks: 7 * day}}
	o.keep.Policy.Retention, _ = history.ParseLimits("24h")
	return o
}

const day = 24 * time.Hour

// Bounds of the interval: below, a batch would follow a batch without a pause;
// above, nobody would call it replication.
const (
	minInterval = 10 * time.Millisecond
	maxInterval = time.Hour
)

// Bounds of what is kept. That the name of an object stays taken for a while is
// how two writers are told apart, so level 0 cannot go at once.
const (
	minL0   = time.Second
	maxKeep = 100 * 365 * day
)

// An option may be given in the URI and in the environment.
type option struct {
	name, env string
	set       func(o *options, value string) error
}

// commonOptions are those of a database that ships and of a replica that is read.
var commonOptions = []option{
	{"replica", "WALFERRY_REPLICA", func(o *options, v string) error { o.replica = v; return nil }},
	{"endpoint", "", func(o *options, v string) error { o.store.Endpoint = v; return nil }},
	{"region", "", func(o *options, v string) error { o.store.Region = v; return nil }},
	{"path_style", "", func(o *options, v string) error {
		on, err := boolean(v)
		if o.store.PathStyle = "0"; on {
			o.store.PathStyle = "1"
		}
		return err
	}},
	{"log", "WALFERRY_LOG", func(o *options, v string) error {
		levels := []string{"off", "error", "info", "debug"}
		o.logLevel = max(0, slices.Index(levels, v))
		return oneOf(v, levels...)
	}},
}

var shipOptions = append([]option{
	{"interval", "WALFERRY_INTERVAL", func(o *options, v string) (err error) {
		o.interval, err = duration(v, minInterval, maxInterval, "a duration from 10ms to 1h, such as 1s")
		return err
	}},
	{"close_timeout", "WALFERRY_CLOSE_TIMEOUT", func(o *options, v string) (err error) {
		o.closeTimeout, err = duration(v, 0, 24*time.Hour, "a duration such as 10s, or 0 for none")
		return err
	}},
	{"wal", "WALFERRY_WAL", func(o *options, v string) error {
		o.keepWAL = v == "keep"
		return oneOf(v, "auto", "keep")
	}},
	{"takeover", "WALFERRY_TAKEOVER", func(o *options, v string) (err error) { o.takeover, err = boolean(v); return err }},
	{"require", "WALFERRY_REQUIRE", func(o *options, v string) (err error) { o.require, err = boolean(v); return err }},
	{"restore", "WALFERRY_RESTORE", func(o *options, v string) error {
		o.restore = v == "auto"
		return oneOf(v, "auto", "off")
	}},
	{"sync_before_ship", "WALFERRY_SYNC_BEFORE_SHIP", func(o *options, v string) (err error) { o.syncFirst, err = boolean(v); return err }},
	{"snapshot_interval", "WALFERRY_SNAPSHOT_INTERVAL", func(o *options, v string) (err error) {
		o.keep.SnapshotInterval, err = duration(v, 0, maxKeep, "a duration such as 24h or 7d, or 0 to merge and remove nothing")
		return err
	}},
	{"retention", "WALFERRY_RETENTION", func(o *options, v string) (err error) {
		o.keep.Policy.Retention, err = history.ParseLimits(v)
		return err
	}},
	{"l0_retention", "WALFERRY_L0_RETENTION", func(o *options, v string) (err error) {
		o.keep.Policy.L0, err = duration(v, minL0, maxKeep, "a duration from 1s, such as 5m")
		return err
	}},
	{"mark_retention", "WALFERRY_MARK_RETENTION", func(o *options, v string) (err error) {
		o.keep.Policy.Marks, err = duration(v, 0, maxKeep, "a duration such as 168h or 7d")
		return err
	}},
	{"default", "WALFERRY_DEFAULT", func(o *options, v string) (err error) { o.makeDefault, err = boolean(v); return err }},
}, commonOptions...)

// apply sets those of all options that get has a value for. The error names the option,
// its value and what is allowed.
func (o *options) apply(all []option, from string, get func(option) (string, bool)) error {
	for _, opt := range all {
		v, ok := get(opt)
		if !ok {
			continue
		}
		if err := opt.set(o, v); err != nil {
			name := opt.name
			if from == "environment" {
				name = opt.env
			}
			if errors.Is(err, history.ErrLimits) { // it says itself what is allowed
				return fmt.Errorf("%s %s: %w", from, name, err)
			}
			return fmt.Errorf("%s %s=%q: allowed is %w", from, name, v, err)
		}
	}
	return nil
}

// fromEnvironment sets what the environment gives for a database.
func (o *options) fromEnvironment(all []option, path string) error {
	err := o.apply(all, "environment", func(opt option) (string, bool) {
		if opt.env == "" {
			return "", false
		}
		v := os.Getenv(opt.env)
		return v, v != ""
	})
	o.replica = expand(o.replica, path)
	return err
}

// fromURI sets what a URI's parameters give.
func (o *options) fromURI(all []option, params map[string]string) error {
	return o.apply(all, "option", func(opt option) (string, bool) {
		v, ok := params[opt.name]
		return v, ok
	})
}

// expand puts the database's name and path where {name} and {path} stand, so
// that one variable serves many databases.
func expand(replica, path string) string {
	if !strings.Contains(replica, "{") {
		return replica
	}
	escape := func(s string) string { return (&url.URL{Path: s}).EscapedPath() }
	return strings.NewReplacer(
		"{name}", escape(filepath.Base(path)),
		"{path}", escape(strings.TrimPrefix(path, "/")),
	).Replace(replica)
}

func duration(v string, low, high time.Duration, allowed string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if days, ok := strings.CutSuffix(v, "d"); ok {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		d = time.Duration(n * float64(day))
	}
	if err != nil || d < low || d > high {
		return low, errors.New(allowed)
	}
	return d, nil
}

func boolean(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "1", "on", "yes", "true":
		return true, nil
	case "0", "off", "no", "false":
		return false, nil
	}
	return false, errors.New("0 or 1")
}

func oneOf(v string, allowed ...string) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	return errors.New(strings.Join(allowed, ", "))
}

// Option is a setting of Register or Open. A URI's parameters win over options,
// and options over the environment.
type Option func(*options)

// WithReplica names the store, file:///dir or s3://bucket/prefix; {name} and
// {path} stand for the database's file name and path.
func WithReplica(url string) Option { return func(o *options) { o.replica = url } }

// WithInterval sets the window, 10ms to 1h: how much a crash of the machine can
// lose at most, beside the time of one PUT.
func WithInterval(d time.Duration) Option { return func(o *options) { o.interval = d } }

// WithCloseTimeout bounds how long a last close waits for its batch; 0 does not
// wait.
func WithCloseTimeout(d time.Duration) Option { return func(o *options) { o.closeTimeout = d } }

// WithKeepJournalMode leaves a database that is not in WAL mode as it is; nothing
// of it ships until somebody switches it.
func WithKeepJournalMode() Option { return func(o *options) { o.keepWAL = true } }

// WithTakeover goes on with the history of a prefix that is not provably this
// database's.
func WithTakeover() Option { return func(o *options) { o.takeover = true } }

// WithRequire makes an open fail unless the store answers and the prefix is ours.
func WithRequire() Option { return func(o *options) { o.require = true } }

// WithRestore restores a database that does not exist, or is an empty file, before it
// is opened, if the replica holds one. An open fails where the store cannot be
// asked. Give it to Register, or to Open before anything else opens the database.
func WithRestore() Option { return func(o *options) { o.restore = true } }

// WithSyncBeforeShip makes commits safe from a power cut before they are put, by
// an fdatasync of the WAL for each object, so that the store is never ahead of
// what the machine comes back with. A database that is checkpointed with
// synchronous=OFF can come back with less all the same.
func WithSyncBeforeShip() Option { return func(o *options) { o.syncFirst = true } }

// WithSnapshotInterval sets the age of the newest snapshot at which another is
// made, if something has changed since; 0 merges and removes nothing.
func WithSnapshotInterval(d time.Duration) Option {
	return func(o *options) { o.keep.SnapshotInterval = d }
}

// WithRetention sets how far back the database can be restored: a time, as in
// "72h", or other limits, "50GB", "20x" (times the database's size), "100p" (points),
// or several of them with commas. See history.ParseLimits.
func WithRetention(limits string) Option {
	return func(o *options) {
		var err error
		if o.keep.Policy.Retention, err = history.ParseLimits(limits); err != nil {
			o.invalid = fmt.Errorf("retention: %w", err)
		}
	}
}

// WithL0Retention sets how long every single window can be restored, from 1s;
// beyond that one in 30 seconds can.
func WithL0Retention(d time.Duration) Option { return func(o *options) { o.keep.Policy.L0 = d } }

// WithMarkRetention sets how long marks can be restored.
func WithMarkRetention(d time.Duration) Option { return func(o *options) { o.keep.Policy.Marks = d } }

// WithDefault registers walferry as the default VFS.
func WithDefault() Option { return func(o *options) { o.makeDefault = true } }

// WithEndpoint sets the address of an S3-compatible store.
func WithEndpoint(endpoint string) Option { return func(o *options) { o.store.Endpoint = endpoint } }

// WithRegion sets the region of an S3 store.
func WithRegion(region string) Option { return func(o *options) { o.store.Region = region } }

func (o *options) validate() error {
	if o.interval < minInterval || o.interval > maxInterval {
		return fmt.Errorf("interval %v: allowed is a duration from 10ms to 1h", o.interval)
	}
	if o.invalid != nil {
		return o.invalid
	}
	if o.keep.SnapshotInterval < 0 || o.keep.Policy.L0 < minL0 || o.keep.Policy.Marks < 0 {
		return fmt.Errorf("snapshot interval %v, level 0 retention %v, mark retention %v: allowed are durations, for level 0 from %v", o.keep.SnapshotInterval, o.keep.Policy.L0, o.keep.Policy.Marks, minL0)
	}
	if o.closeTimeout < 0 {
		return fmt.Errorf("close timeout %v: allowed is 0 or more", o.closeTimeout)
	}
	return o.validateReplica()
}

func (o *options) validateReplica() error {
	if o.replica == "" {
		return errors.New("no replica given: add replica=file:///dir or replica=s3://bucket/prefix to the URI, or set WALFERRY_REPLICA")
	}
	return nil
}

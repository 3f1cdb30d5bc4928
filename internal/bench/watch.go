package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/superfly/ltx"
)

// objectName is the name of a finished object; temporary files have other names.
var objectName = regexp.MustCompile(`^[0-9a-f]{16}-[0-9a-f]{16}\.ltx$`)

// objectNames lists the finished objects of a directory replica, as paths, on the levels where new
// ones appear. A replica that does not exist yet has none.
func objectNames(replica string) ([]string, error) { return target{Replica: replica}.objects(0, 9) }

// objects lists the finished objects that lie on some levels of the target's replica, as paths; on S3
// they are files of the server's. A replica that does not exist yet has none.
func (t target) objects(levels ...int) ([]string, error) {
	var paths []string
	for _, n := range levels {
		level := t.level(n)
		entries, err := os.ReadDir(level)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if objectName.MatchString(e.Name()) {
				paths = append(paths, filepath.Join(level, e.Name()))
			}
		}
	}
	return paths, nil
}

// arrival is an object and when it was first seen.
type arrival struct {
	path string
	at   time.Duration // monotonic
}

// watcher looks at a replica once a millisecond and notes when objects appear.
type watcher struct {
	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex // protects what follows
	seen     map[string]bool
	arrivals []arrival
	err      error // the first failure; the watcher has ended
}

func watch(ctx context.Context, replica string) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{stop: cancel, done: make(chan struct{}), seen: map[string]bool{}}
	go w.run(ctx, replica)
	return w
}

// run polls until ctx ends or a look fails.
func (w *watcher) run(ctx context.Context, replica string) {
	defer close(w.done)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if err := w.look(replica); err != nil {
			w.mu.Lock()
			w.err = err
			w.mu.Unlock()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *watcher) look(replica string) error {
	paths, err := objectNames(replica)
	if err != nil {
		return err
	}
	now, err := monotonic()
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range paths {
		if !w.seen[p] {
			w.seen[p] = true
			w.arrivals = append(w.arrivals, arrival{p, now})
		}
	}
	return nil
}

// after returns the arrivals from the n-th on.
func (w *watcher) after(n int) ([]arrival, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]arrival(nil), w.arrivals[n:]...), w.err
}

// close ends the watcher and waits for it.
func (w *watcher) close() {
	w.stop()
	<-w.done
}

// holds returns which of the markers occur in the pages of an object. It reads the LTX file with
// the format's own library, so it does not believe what the writer says about itself.
func holds(path string, markers []string) (found []int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dec := ltx.NewDecoder(f)
	if err := dec.DecodeHeader(); err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	page := make([]byte, dec.Header().PageSize)
	has := make([]bool, len(markers))
	for {
		var head ltx.PageHeader
		if err := dec.DecodePage(&head, page); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("decode page of %s: %w", path, err)
		}
		for i, m := range markers {
			has[i] = has[i] || bytes.Contains(page, []byte(m))
		}
	}
	for i, ok := range has {
		if ok {
			found = append(found, i)
		}
	}
	return found, nil
}

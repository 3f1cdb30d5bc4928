package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"time"
)

// pacedSpec tells a child to commit at a steady pace, as an application with some users does.
type pacedSpec struct {
	Target target
	Ship   bool          // have the first snapshot in the replica before the first commit
	Load   int           // index in writeLoads
	Every  time.Duration // from the beginning of a commit to that of the next
	Ops    int           // commits to make, unless it is told to stop earlier
}

// pacedResult is what it did.
type pacedResult struct {
	Ops     int
	Elapsed time.Duration
}

// pacedChild: receives a pacedSpec, opens, says ready, commits until all is done or a cue
// comes, sends a pacedResult, and closes the database at the next cue or when its input ends.
func pacedChild(l *link) error {
	var spec pacedSpec
	if err := l.receive(&spec); err != nil {
		return err
	}
	open := spec.Target.open
	if !spec.Ship {
		open = spec.Target.openUnshipped
	}
	c, err := open()
	if err != nil {
		return err
	}
	if err := l.ready(); err != nil {
		return err
	}
	cues := make(chan cue)
	go func() {
		defer close(cues)
		for l.receive(&cue{}) == nil {
			cues <- cue{}
		}
	}()
	result, err := pacedCommits(c, spec, cues)
	if err == nil {
		err = l.send(result)
	}
	if err == nil {
		<-cues
	}
	return errors.Join(err, c.Close())
}

// pacedCommits runs the load. A commit that takes longer than the pace allows is followed by the next
// at once, until it has caught up: two sides that write for the same time write the same.
func pacedCommits(c *conn, spec pacedSpec, stop <-chan cue) (result pacedResult, err error) {
	load := writeLoads[spec.Load]
	stmt, err := c.prepare(load.sql)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	rows := int64(0)
	if load.big {
		v, err := c.value("SELECT max(id) FROM rows")
		if err != nil {
			return result, err
		}
		rows = v.(int64)
	}
	rng := rand.New(rand.NewPCG(8, 9))
	args := bind(make([]driver.Value, stmt.NumInput())...)
	begin := time.Now()
	wait := time.NewTimer(0)
	defer wait.Stop()
	for result.Ops < spec.Ops {
		wait.Reset(time.Until(begin.Add(time.Duration(result.Ops) * spec.Every)))
		select {
		case <-wait.C:
		case _, told := <-stop:
			if !told {
				return result, errors.New("nobody is there to tell")
			}
			result.Elapsed = time.Since(begin)
			return result, nil
		}
		if load.args != nil {
			load.args(result.Ops, rng, rows, args)
		}
		if _, err := stmt.ExecContext(context.Background(), args); err != nil {
			return result, err
		}
		result.Ops++
	}
	// The last commit has its time too.
	wait.Reset(time.Until(begin.Add(time.Duration(result.Ops) * spec.Every)))
	select {
	case <-wait.C:
	case <-stop:
	}
	result.Elapsed = time.Since(begin)
	return result, nil
}

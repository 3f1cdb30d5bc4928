// Package group runs goroutines whose panics reach the one that waits for them.
// Walferry lives in somebody else's process, which a panic in a goroutine ends
// wherever it is not recovered; whoever starts work recovers, and can only do so
// if the panics of all goroutines under him come to him.
package group

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sync/errgroup"
)

// Panic is what a goroutine panicked with.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) String() string { return fmt.Sprintf("%v\n%s", p.Value, p.Stack) }

// Catch calls f and returns what it panicked with, nil if it did not. What another
// goroutine panicked with, and Wait passed on, is returned as it is.
func Catch(f func()) (p *Panic) {
	defer func() {
		if v := recover(); v != nil {
			p = Recovered(v)
		}
	}()
	f()
	return nil
}

// Recovered is what recover returned, with a stack. It is to be called by the
// function that recovered.
func Recovered(v any) *Panic {
	if p, ok := v.(*Panic); ok {
		return p
	}
	return &Panic{v, debug.Stack()}
}

// Group is an errgroup.Group whose Wait panics with what one of its goroutines
// panicked with.
type Group struct {
	*errgroup.Group
	panics chan *Panic // holds the first
}

var errPanic = errors.New("a goroutine panicked")

// New returns a Group without a limit.
func New() *Group { return &Group{new(errgroup.Group), make(chan *Panic, 1)} }

// WithContext returns a Group, and a context that ends with the first error or
// panic.
func WithContext(ctx context.Context) (*Group, context.Context) {
	g, ctx := errgroup.WithContext(ctx)
	return &Group{g, make(chan *Panic, 1)}, ctx
}

// Go calls f in a goroutine.
func (g *Group) Go(f func() error) {
	g.Group.Go(func() (err error) {
		p := Catch(func() { err = f() })
		if p == nil {
			return err
		}
		select {
		case g.panics <- p:
		default:
		}
		return errPanic
	})
}

// Wait waits for all goroutines and returns the first error.
func (g *Group) Wait() error {
	err := g.Group.Wait()
	select {
	case p := <-g.panics:
		panic(p)
	default:
		return err
	}
}

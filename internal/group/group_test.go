package group_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/walferry/walferry/internal/group"
)

func TestAPanicReachesWhoWaits(t *testing.T) {
	p := group.Catch(func() {
		outer, _ := group.WithContext(context.Background())
		outer.Go(func() error {
			inner := group.New()
			inner.Go(func() error { panic("deep down") })
			return inner.Wait()
		})
		_ = outer.Wait()
	})
	if p == nil || p.Value != "deep down" || !strings.Contains(string(p.Stack), "TestAPanicReachesWhoWaits") {
		t.Fatalf("caught %v", p)
	}
}

func TestAPanicEndsTheContext(t *testing.T) {
	p := group.Catch(func() {
		g, ctx := group.WithContext(context.Background())
		g.Go(func() error { <-ctx.Done(); return nil })
		g.Go(func() error { panic(1) })
		_ = g.Wait()
	})
	if p == nil || p.Value != 1 {
		t.Fatalf("caught %v", p)
	}
}

func TestWithoutAPanicTheFirstErrorIsReturned(t *testing.T) {
	boom := errors.New("boom")
	g := group.New()
	g.Go(func() error { return nil })
	g.Go(func() error { return boom })
	if err := g.Wait(); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if p := group.Catch(func() {}); p != nil {
		t.Fatal(p)
	}
}

//go:build !cgo

package main

import (
	"strings"
	"testing"
)

func TestShipSaysHowToGetIt(t *testing.T) {
	code, stdout, stderr := walferry("ship", "app.db", "file:///tmp/replica")
	if code != exitFailure || stdout != "" || !strings.Contains(stderr, "make build") {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
}

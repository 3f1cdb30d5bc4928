package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	childMain()
	os.Exit(m.Run())
}

// A short soak: `make soak` takes longer ones.
func TestNothingGrows(t *testing.T) {
	server := "../../dist/tools/versitygw" // relative, as `make soak` names it
	if _, err := os.Stat(server); err != nil {
		t.Fatalf("%v: make tools", err)
	}
	c := config{duration: 12 * time.Second, databases: 2, opens: 500, many: 20, seed: 1, server: server}
	if err := run(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func TestAFigureThatGrowsIsNamed(t *testing.T) {
	before := []sample{{Descriptors: 10}, {Descriptors: 11}, {Descriptors: 900}}
	if err := stayed("x", before, []sample{{Descriptors: 27}}); err != nil {
		t.Error(err)
	}
	if err := stayed("x", before, []sample{{Descriptors: 28}}); err == nil || !strings.Contains(err.Error(), "descriptors") {
		t.Errorf("error %v", err)
	}
}

package main

import (
	"testing"
	"time"
)

// TestTimelineOfAllTime draws an axis over more than a Duration holds.
func TestTimelineOfAllTime(t *testing.T) {
	tl := &timeline{from: time.Unix(0, 0).UTC(), to: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}
	tl.axis()
	if tl.b.Len() == 0 {
		t.Error("no axis")
	}
}

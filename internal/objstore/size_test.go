package objstore

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestPartsStayWithinTheirNumber(t *testing.T) {
	for _, n := range []int64{maxPut + 1, minPart * maxParts, minPart*maxParts + 1, 1 << 40, 5 << 40} {
		p := partSize(n)
		if parts := (n + p - 1) / p; parts > maxParts || p < minPart || p > 5<<30 {
			t.Errorf("%d bytes: %d parts of %d", n, parts, p)
		}
	}
	if partSize(100<<30) != minPart {
		t.Error("parts grow too early")
	}
}

// The way for file systems that have no files without a name.
func TestNamedTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	final := filepath.Join(dir, "final")
	for i := range 2 {
		f, err := openNamed(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte{'0' + byte(i)}); err != nil {
			t.Fatal(err)
		}
		if err := f.link(final); (err == nil) != (i == 0) || i == 1 && !os.IsExist(err) {
			t.Errorf("%d: %v", i, err)
		}
		f.discard()
	}
	if b, err := os.ReadFile(final); err != nil || !bytes.Equal(b, []byte("0")) {
		t.Errorf("%q, %v", b, err)
	}
	if e, _ := os.ReadDir(dir); len(e) != 1 {
		t.Errorf("left behind: %v", e)
	}
}

func TestWatchdogBitesOnlyInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, dog := watch(t.Context(), "host")
		for range 5 {
			time.Sleep(silentRequest - time.Second)
			dog.reset()
		}
		dog.stop()
		time.Sleep(time.Hour)
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
		dog.reset()
		time.Sleep(silentRequest)
		synctest.Wait()
		s := &s3Store{chain: newChain()}
		if err := s.fail(ctx, "read", "x", ctx.Err()); err == nil || err.Error() != "read x: no answer from host within 1m0s: check the network and endpoint=" {
			t.Error(err)
		}
		dog.end()
	})
}

package crash

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/walferry/walferry/internal/crash/trap"
	"github.com/walferry/walferry/vfs"
)

// childEnv carries the orders of a process that is started to be killed.
const childEnv = "WALFERRY_TEST_CRASH_CHILD"

func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		die(err)
	}
	if err := trap.Begin(o.Plan); err != nil {
		die(err)
	}
	if err := vfs.Register(); err != nil {
		die(err)
	}
	o.run()
	if o.Count {
		for step, n := range trap.Counts() {
			fmt.Println("count", n, step)
		}
	}
	os.Exit(0)
}

func die(err error) {
	fmt.Println("failed", err)
	os.Exit(1)
}

// Package s3test runs a real S3 server, versitygw, for tests. Its objects are plain
// files below Server.Dir, so that a test may count, damage or delete them.
package s3test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"
)

// Server is a running server. Its methods are for one goroutine, in a test the test's own.
type Server struct {
	Endpoint string // http://127.0.0.1:port
	Access   string // the access key
	Secret   string // the secret key
	Dir      string // a bucket is a directory here, and an object a file

	addr    string
	binary  string
	sidecar string // where there are no extended attributes
	proc    *process
}

// process is one run of the binary.
type process struct {
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{} // closed when it has ended
}

// Start runs a server until the end of the test. A test run with -short is skipped
// where the server is not built; any other fails.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := Launch(t.Context(), binary(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop) // runs before the directory is removed
	return s
}

// Launch runs a server outside a test, until Stop or the end of this process. The binary
// is versitygw; what it stores lies in home, which is the caller's to remove. It
// returns once the server answers.
func Launch(ctx context.Context, binary, home string) (*Server, error) {
	binary, err := filepath.Abs(binary) // it runs in a directory of its own
	if err != nil {
		return nil, err
	}
	s := &Server{Access: "walferry-test-access", Secret: "walferry-test-secret", binary: binary, Dir: filepath.Join(home, "objects")}
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Setxattr(s.Dir, "user.walferry.test", []byte("x"), 0); err != nil {
		s.sidecar = filepath.Join(home, "sidecar")
		if err := os.Mkdir(s.sidecar, 0o755); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.addr = l.Addr().String()
	s.Endpoint = "http://" + s.addr
	l.Close()
	return s, s.run(ctx)
}

// binary finds the server: WALFERRY_VERSITYGW, then where `make tools` puts it.
func binary(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("WALFERRY_VERSITYGW"); p != "" {
		return p
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	p := filepath.Join(dir, "dist", "tools", "versitygw")
	if _, err := os.Stat(p); err != nil {
		if testing.Short() {
			t.Skip("versitygw is not built: run make tools")
		}
		t.Fatal("versitygw is not built: run make tools")
	}
	return p
}

// Start runs the server again, on the same port and with the same objects. It returns
// once the server answers, and does nothing where it runs.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// run is Start without a test. Where it fails, nothing runs.
func (s *Server) run(ctx context.Context) error {
	if s.proc != nil {
		return nil
	}
	args := []string{"--port", s.addr, "--health", "/health", "--quiet", "posix"}
	if s.sidecar != "" {
		args = append(args, "--sidecar", s.sidecar)
	}
	p := &process{cmd: exec.Command(s.binary, append(args, s.Dir)...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.Access, "ROOT_SECRET_KEY="+s.Secret)
	p.cmd.Dir = s.Dir
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal comes when the thread that started it ends, not the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start versitygw: %w", err)
	}
	s.proc = p
	if err := s.ready(ctx, p); err != nil {
		s.Stop()
		return fmt.Errorf("start versitygw: %w\n%s", err, p.out.String())
	}
	return nil
}

// ready waits for the health page.
func (s *Server) ready(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/health", nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("it ended: %v", p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("no answer at %s", s.Endpoint)
		}
	}
}

// Stop kills the server, as a crash would, and waits for its end.
func (s *Server) Stop() {
	if s.proc == nil {
		return
	}
	_ = s.proc.cmd.Process.Kill()
	<-s.proc.done
	s.proc = nil
}

// Env lets the AWS variables of the test name this server and nothing else.
func (s *Server) Env(t testing.TB) {
	t.Helper()
	for k, v := range s.Environ() {
		t.Setenv(k, v)
	}
}

// Environ holds the AWS variables by which a program finds this server and nothing else.
func (s *Server) Environ() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID":         s.Access,
		"AWS_SECRET_ACCESS_KEY":     s.Secret,
		"AWS_SESSION_TOKEN":         "",
		"AWS_PROFILE":               "",
		"AWS_ENDPOINT_URL_S3":       s.Endpoint,
		"AWS_ENDPOINT_URL":          "",
		"AWS_REGION":                "us-east-1",
		"AWS_DEFAULT_REGION":        "",
		"AWS_CA_BUNDLE":             "", // litestream does not start with one
		"AWS_EC2_METADATA_DISABLED": "true",
	}
}

// Bucket makes a bucket.
func (s *Server) Bucket(t testing.TB, name string) {
	t.Helper()
	if err := s.MakeBucket(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// MakeBucket is Bucket outside a test.
func (s *Server) MakeBucket(ctx context.Context, name string) error {
	c, err := minio.New(s.addr, &minio.Options{
		Creds:        credentials.NewStaticV4(s.Access, s.Secret, ""),
		Region:       "us-east-1",
		BucketLookup: minio.BucketLookupPath,
		MaxRetries:   1,
	})
	if err == nil {
		err = c.MakeBucket(ctx, name, minio.MakeBucketOptions{Region: "us-east-1"})
	}
	if err != nil {
		return fmt.Errorf("make bucket %s: %w", name, err)
	}
	return nil
}

// lockedBuffer takes what a process writes while a test may read it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write is part of io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String is what was written so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

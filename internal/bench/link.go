package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// childCommand is the hidden first argument that makes this program the measured child of another.
const childCommand = "measured-child"

// childLimit bounds the life of any child or tool, in case something hangs. The longest is the first
// snapshot of a big database.
const childLimit = 30 * time.Minute

// children are the roles that a child can play, by their name on its command line.
var children = map[string]func(*link) error{
	"write":    writeChild,
	"read":     readChild,
	"visible":  visibleChild,
	"snapshot": snapshotChild,
	"idle":     idleChild,
	"paced":    pacedChild,
}

// link is one end of the conversation between this program and a child: JSON values over the
// child's standard input and output. Who speaks when is written at each child.
type link struct {
	enc *json.Encoder
	dec *json.Decoder
}

// cue is a message that says nothing but "now".
type cue struct{}

func (l *link) send(v any) error {
	if err := l.enc.Encode(v); err != nil {
		return fmt.Errorf("send %T: %w", v, err)
	}
	return nil
}

func (l *link) receive(v any) error {
	if err := l.dec.Decode(v); err != nil {
		return fmt.Errorf("receive %T: %w", v, err)
	}
	return nil
}

// ready is sent by a child whose preparations are done; it waits until it is told to go.
func (l *link) ready() error {
	if err := l.send(cue{}); err != nil {
		return err
	}
	return l.receive(&cue{})
}

// runChild plays the role with the parent at the standard input and output.
func runChild(role string) error {
	play, known := children[role]
	if !known {
		return errors.New("unknown role")
	}
	return play(&link{json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)})
}

// child is a running child, seen from the parent.
type child struct {
	link
	role  string
	cmd   *exec.Cmd
	stdin io.Closer
	said  *bytes.Buffer // its standard error; read after it has ended
	guard *time.Timer   // kills it after childLimit
}

// startChild starts this program again in the given role and sends it spec.
func (b *bench) startChild(role string, spec any) (*child, error) {
	cmd := exec.CommandContext(b.ctx, b.exe, childCommand, role)
	cmd.Env = b.environ()
	return b.converse(role, cmd, spec)
}

// converse starts a program that speaks as a child does, and sends it spec.
func (b *bench) converse(role string, cmd *exec.Cmd, spec any) (*child, error) {
	said := new(bytes.Buffer)
	cmd.Stderr = io.MultiWriter(os.Stderr, said)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	c := &child{
		link: link{json.NewEncoder(stdin), json.NewDecoder(stdout)},
		role: role, cmd: cmd, stdin: stdin, said: said,
		guard: time.AfterFunc(childLimit, func() { _ = cmd.Process.Kill() }),
	}
	if err := c.send(spec); err != nil {
		return nil, errors.Join(err, c.end())
	}
	return c, nil
}

// end closes the child's input and waits for it. A child that is still busy then finds nobody to
// talk to and ends with an error.
func (c *child) end() error {
	closing := c.stdin.Close()
	defer c.guard.Stop()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s process: %w: %s", c.role, err, bytes.TrimSpace(c.said.Bytes()))
	}
	return closing
}

// start tells a child that said it was ready to go, when the disk has been flushed of what was
// written before.
func (c *child) start() error {
	flushDisk()
	return c.send(cue{})
}

// ask runs a child that gets spec, does all its work at once and sends one result.
func ask[T any](b *bench, role string, spec any) (result T, err error) {
	c, err := b.startChild(role, spec)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	if err := c.receive(&cue{}); err != nil {
		return result, err
	}
	if err := c.start(); err != nil {
		return result, err
	}
	err = c.receive(&result)
	return result, err
}

// environ is the environment of every process that is measured. It lacks walferry's variables, as a
// WALFERRY_DEFAULT=1 of the user's would put walferry under the plain side, litestream's, and the
// user's own buckets; it names the S3 server of this run where there is one.
func (b *bench) environ() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "WALFERRY_") && !strings.HasPrefix(kv, "LITESTREAM_") && !strings.HasPrefix(kv, "AWS_") {
			env = append(env, kv)
		}
	}
	if b.s3 != nil {
		for k, v := range b.s3.Environ() {
			env = append(env, k+"="+v)
		}
	}
	return env
}

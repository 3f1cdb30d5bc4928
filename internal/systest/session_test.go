package systest

import "strings"

// client is a program with a connection, driven line by line.
type client struct{ *proc }

// client starts one; params are URI parameters, NAME=VALUE.
func (p *place) client(params ...string) client {
	p.t.Helper()
	s := client{p.start("client.py", params...)}
	s.do("open")
	return s
}

// try returns the answer to a line, and whether it is an error.
func (s client) try(line string) (answer string, ok bool) {
	s.t.Helper()
	s.send(line)
	full := s.expect("")
	if text, ok := strings.CutPrefix(full, "ok"); ok {
		return strings.TrimSpace(text), true
	}
	return strings.TrimPrefix(full, "error "), false
}

// do wants no error.
func (s client) do(line string) string {
	s.t.Helper()
	answer, ok := s.try(line)
	if !ok {
		s.t.Fatalf("%s: %s\nstderr:\n%s", line, answer, s.err.String())
	}
	return answer
}

func (s client) exec(sql string)          { s.t.Helper(); s.do("exec " + sql) }
func (s client) get(sql string) string    { s.t.Helper(); return s.do("get " + sql) }
func (s client) confirm()                 { s.t.Helper(); s.do("confirm") }
func (s client) status(key string) string { s.t.Helper(); return s.do("status " + key) }

// fails wants an error that says all of the texts.
func (s client) fails(line string, texts ...string) {
	s.t.Helper()
	answer, ok := s.try(line)
	if ok {
		s.t.Fatalf("%s succeeded: %s", line, answer)
	}
	for _, text := range texts {
		if !strings.Contains(answer, text) {
			s.t.Errorf("%s: the error %q does not say %q", line, answer, text)
		}
	}
}

// end closes the connection and awaits the end of the program.
func (s client) end() {
	s.t.Helper()
	s.do("close")
	s.finish()
}

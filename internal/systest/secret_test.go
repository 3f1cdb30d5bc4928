package systest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const secret = "SeCrEt/of+the=OwNeR"

// indiscreet is a store that repeats what it was sent in everything that it says.
func indiscreet(t *testing.T, status int, code string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said := fmt.Sprint(r.Header, r.URL, secret)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message><Resource>%[2]s</Resource></Error>", code, strings.NewReplacer("<", "", "&", "").Replace(said))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestSecret_NothingTellsIt provokes errors with secrets wherever a user may have put
// them, and looks for them in all that walferry says and writes.
func TestSecret_NothingTellsIt(t *testing.T) {
	escaped := url.QueryEscape(secret)
	keys := []string{"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_SESSION_TOKEN=" + secret}
	const dead = "http://127.0.0.1:1"
	for name, c := range map[string]struct {
		replica string
		params  string
		env     []string
	}{
		"user and password":        {replica: "s3://key:" + escaped + "@bucket/app"},
		"password with a slash":    {replica: "s3://key:" + secret + "@bucket/app"},
		"user without slashes":     {replica: "s3:key:" + secret + "@bucket/app"},
		"a file's password":        {replica: "file://key:" + escaped + "@host/dir"},
		"another scheme":           {replica: "gs://bucket/app?key=" + escaped},
		"a parameter of a file":    {replica: "file:///nowhere/dir?key=" + escaped},
		"an unknown parameter":     {replica: "s3://bucket/app?key=" + escaped},
		"a parameter twice":        {replica: "s3://bucket/app?region=" + escaped + "&region=" + escaped},
		"a query that is none":     {replica: "s3://bucket/app?%zz=" + escaped},
		"a fragment":               {replica: "s3://bucket/app#" + escaped},
		"an endpoint's password":   {replica: "s3://bucket/app", params: "&endpoint=http://key:" + escaped + "@127.0.0.1:1"},
		"an endpoint's query":      {replica: "s3://bucket/app", params: "&endpoint=" + dead + "/%3Fkey=" + escaped},
		"an endpoint's fragment":   {replica: "s3://bucket/app", params: "&endpoint=" + dead + "/%23" + escaped},
		"an endpoint in the URL":   {replica: "s3://bucket/app?endpoint=" + url.QueryEscape(dead+"/?key="+secret)},
		"a variable's password":    {replica: "s3://bucket/app", env: []string{"AWS_ENDPOINT_URL_S3=http://key:" + escaped + "@127.0.0.1:1"}},
		"a variable's query":       {replica: "s3://bucket/app", env: []string{"AWS_ENDPOINT_URL=" + dead + "/?key=" + escaped}},
		"a store that is away":     {replica: "s3://bucket/app", params: "&endpoint=" + dead, env: keys},
		"a proxy's password":       {replica: "s3://bucket/app", params: "&endpoint=http://store.invalid", env: append(keys, "HTTP_PROXY=http://key:"+escaped+"@127.0.0.1:1", "http_proxy=http://key:"+escaped+"@127.0.0.1:1")},
		"a proxy that is none":     {replica: "s3://bucket/app", params: "&endpoint=http://store.invalid", env: append(keys, "HTTP_PROXY=key:"+secret, "http_proxy=key:"+secret)},
		"a store that tells: 400":  {replica: "s3://bucket/app", params: "&endpoint=" + indiscreet(t, 400, "InvalidRequest"), env: keys},
		"a store that tells: 403":  {replica: "s3://bucket/app", params: "&endpoint=" + indiscreet(t, 403, "Forbidden"), env: keys},
		"a store that tells: 409":  {replica: "s3://bucket/app", params: "&endpoint=" + indiscreet(t, 409, "Weird"), env: keys},
		"a code that tells":        {replica: "s3://bucket/app", params: "&endpoint=" + indiscreet(t, 400, secret), env: keys},
		"a profile that is broken": {replica: "s3://bucket/app", params: "&endpoint=" + dead, env: []string{"AWS_SHARED_CREDENTIALS_FILE=" + profile(t)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t).with(c.env...)
			p.replica = strings.NewReplacer("?", "%3F", "&", "%26", "#", "%23", "+", "%2B", "%", "%25").Replace(c.replica)
			var said strings.Builder
			tell := func(r result) {
				said.WriteString(r.stdout)
				for line := range strings.Lines(r.stderr) {
					if !strings.HasPrefix(line, "Error: unable to open database \"file:") { // the shell repeats the URI
						said.WriteString(line)
					}
				}
			}
			tell(p.shell(".open '"+p.uri("&log=debug&close_timeout=0"+c.params)+"'", "CREATE TABLE t(v);", "INSERT INTO t VALUES(1);",
				"SELECT walferry_wait(walferry_token(), 10);", "PRAGMA walferry_sync;", "SELECT walferry_mark('m');", "PRAGMA walferry_status;"))
			if said.Len() == 0 {
				t.Error("nothing was said")
			}
			tell(p.walferry("status", "-json", p.db))
			tell(p.walferry("status", p.db))
			if endpoint, ok := strings.CutPrefix(c.params, "&endpoint="); ok {
				endpoint, _ = url.PathUnescape(endpoint)
				p = p.with("AWS_ENDPOINT_URL_S3=" + endpoint)
			}
			tell(p.walferry("ship", "-timeout", "100ms", p.db, c.replica))
			files, _ := filepath.Glob(p.db + "*")
			for _, f := range files {
				b, _ := os.ReadFile(f)
				said.Write(b)
			}
			for _, s := range []string{secret, escaped, "OwNeR", strings.ReplaceAll(secret, "/", "%2F")} {
				if at := strings.Index(said.String(), s); at >= 0 {
					t.Errorf("%q is told: %q", s, said.String()[max(0, at-300):min(said.Len(), at+100)])
				}
			}
		})
	}
}

func profile(t *testing.T) string {
	name := filepath.Join(tempDir(t), "credentials")
	if err := os.WriteFile(name, []byte("[default\naws_access_key_id = key\naws_secret_access_key = "+secret+"\n"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

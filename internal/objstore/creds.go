package objstore

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// chain finds credentials in the order of AWS's own tools. The chain of the
// client library falls back to anonymous requests, whose refusal would tell the
// user nothing; this one says where it looked.
//
// The library serializes the calls of a provider; mu guards last alone, which
// masking reads.
type chain struct {
	file *credentials.FileAWSCredentials
	role *credentials.IAM
	curr credentials.Provider // whose credentials are in use; nil: the environment's

	found bool // credentials were had once

	mu   sync.Mutex
	last credentials.Value
}

// newChain looks at nothing yet.
func newChain() *chain {
	// The instance metadata service answers at once or is not there, and a
	// machine outside of a cloud must not wait long to be told so.
	tr := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		DialContext:     (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		IdleConnTimeout: 10 * time.Second,
	}
	return &chain{
		file: &credentials.FileAWSCredentials{},
		role: &credentials.IAM{Client: &http.Client{Transport: tr, Timeout: 10 * time.Second}},
	}
}

// IsExpired is part of credentials.Provider.
func (c *chain) IsExpired() bool {
	return !c.found || c.curr != nil && c.curr.IsExpired()
}

// Retrieve is part of credentials.Provider.
func (c *chain) Retrieve() (credentials.Value, error) { return c.RetrieveWithCredContext(nil) }

// RetrieveWithCredContext is part of credentials.Provider. It fails with
// ErrRefused where there is nothing to be found, and with another error where a
// role's credentials cannot be had for now.
func (c *chain) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	v, p, err := c.find(cc)
	if err != nil {
		return credentials.Value{}, err
	}
	v.SignerType = credentials.SignatureV4
	c.curr, c.found = p, true
	c.mu.Lock()
	c.last = v
	c.mu.Unlock()
	return v, nil
}

func (c *chain) find(cc *credentials.CredContext) (credentials.Value, credentials.Provider, error) {
	for _, p := range []string{"AWS", "LITESTREAM"} {
		id, secret := os.Getenv(p+"_ACCESS_KEY_ID"), os.Getenv(p+"_SECRET_ACCESS_KEY")
		if id == "" || secret == "" {
			continue
		}
		v := credentials.Value{AccessKeyID: id, SecretAccessKey: secret}
		if p == "AWS" {
			v.SessionToken = os.Getenv("AWS_SESSION_TOKEN")
		}
		return v, nil, nil
	}
	// The error is dropped: it may quote a line of the credentials file.
	if v, err := c.file.RetrieveWithCredContext(cc); err == nil && v.AccessKeyID != "" {
		return v, c.file, nil
	}
	named := os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") != "" ||
		os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "" ||
		os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") != ""
	if !named && strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		return credentials.Value{}, nil, errNoCredentials()
	}
	v, err := c.role.RetrieveWithCredContext(cc)
	switch {
	case err == nil && v.AccessKeyID != "":
		return v, c.role, nil
	case err != nil && (named || c.curr == c.role):
		// Its URL is left out, as it may hold what it should not.
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err
		}
		return credentials.Value{}, nil, fmt.Errorf("fetch the role's credentials: %w", err)
	}
	return credentials.Value{}, nil, errNoCredentials()
}

// errNoCredentials says where they were looked for, and what is half there.
func errNoCredentials() error {
	var hint string
	for _, p := range []string{"AWS", "LITESTREAM"} {
		id, secret := p+"_ACCESS_KEY_ID", p+"_SECRET_ACCESS_KEY"
		if os.Getenv(id) == "" {
			id, secret = secret, id
		}
		if os.Getenv(id) != "" {
			hint += fmt.Sprintf(" (%s is set, %s is not)", id, secret)
		}
	}
	if p := os.Getenv("AWS_PROFILE"); p != "" {
		hint += fmt.Sprintf(" (AWS_PROFILE is %q)", p)
	}
	return fmt.Errorf("%w: no credentials found%s: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "+
		"or LITESTREAM_ACCESS_KEY_ID and LITESTREAM_SECRET_ACCESS_KEY, or write a profile to ~/.aws/credentials "+
		"(AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE), or give the machine a role", ErrRefused, hint)
}

// mask takes out of a store's message what it may have repeated.
func (c *chain) mask(s string) string {
	c.mu.Lock()
	v := c.last
	c.mu.Unlock()
	for _, secret := range []string{v.SecretAccessKey, v.SessionToken, v.AccessKeyID} {
		if len(secret) >= 8 { // anything shorter is a test's, and part of every word
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}

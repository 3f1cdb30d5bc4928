package objstore

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// defaultRegion is what S3-compatible stores without regions expect in a signature.
const defaultRegion = "us-east-1"

// setting is a value and the name under which its owner knows it.
type setting struct{ name, value string }

// first returns the first setting that is not empty.
func first(s ...setting) setting {
	for _, v := range s {
		if v.value != "" {
			return v
		}
	}
	return setting{}
}

func env(name string) setting { return setting{name, os.Getenv(name)} }

func (c *s3Config) setEndpoint(q url.Values, o Options) error {
	s := first(setting{"endpoint", q.Get("endpoint")}, setting{"endpoint", o.Endpoint},
		env("AWS_ENDPOINT_URL_S3"), env("AWS_ENDPOINT_URL"))
	if s.value == "" {
		c.secure = true
		return nil
	}
	if strings.Contains(s.value, "@") {
		return fmt.Errorf("%w: %s carries a user or password before '@': give credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", ErrURL, s.name)
	}
	bad := fmt.Errorf("%w: %s %s: allowed are host:port, http://host:port and https://host:port", ErrURL, s.name, shown(s.value))
	raw := s.value
	if !strings.Contains(raw, "://") {
		raw = "//" + raw
	}
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || strings.ContainsAny(raw, "?#") {
		return bad
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r <= ' ' || r > '~' }) || strings.HasSuffix(u.Host, ":") {
		return bad
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return bad
		}
	}
	switch u.Scheme {
	case "https":
		c.secure = true
	case "http":
	case "":
		c.secure = !localHost(u.Hostname())
	default:
		return bad
	}
	c.endpoint = u.Host
	return nil
}

// localHost tells whether a host given without a scheme is taken to speak plain
// HTTP: this machine or one of a private network, as Litestream's users expect.
func localHost(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || strings.HasSuffix(host, ".local") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.IsLoopback() || ip.IsPrivate())
}

func (c *s3Config) setRegion(q url.Values, o Options) error {
	s := first(setting{"region", q.Get("region")}, setting{"region", o.Region},
		env("AWS_REGION"), env("AWS_DEFAULT_REGION"), setting{"region", defaultRegion})
	if !regionName.MatchString(s.value) {
		return fmt.Errorf("%w: %s %q: allowed is a region's name, such as %s", ErrURL, s.name, s.value, defaultRegion)
	}
	c.region = s.value
	return nil
}

func (c *s3Config) setPathStyle(q url.Values, o Options) error {
	s := first(setting{"forcePathStyle", q.Get("forcePathStyle")},
		setting{"force-path-style", q.Get("force-path-style")}, setting{"path style", o.PathStyle})
	yes, no := true, false
	switch strings.ToLower(s.value) {
	case "1", "true", "t", "yes":
		c.pathStyle = &yes
	case "0", "false", "f", "no":
		c.pathStyle = &no
	case "":
		if c.endpoint != "" {
			c.pathStyle = &yes
		}
	default:
		return fmt.Errorf("%w: %s %q: allowed are true and false", ErrURL, s.name, s.value)
	}
	return nil
}

package main

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2" // a network that is slow in a stated way
	"github.com/rs/zerolog"
)

// slow is a TCP proxy that makes the way to a server slow.
type slow struct {
	Endpoint string
	proxy    *toxiproxy.Proxy
}

// slowdown is one thing that happens to a connection, as toxiproxy names it.
type slowdown string

// away puts the server so far away that a question and its answer take d.
func away(d time.Duration) []slowdown {
	half := d.Milliseconds() / 2
	return []slowdown{
		slowdown(fmt.Sprintf(`{"type":"latency","stream":"upstream","attributes":{"latency":%d}}`, half)),
		slowdown(fmt.Sprintf(`{"type":"latency","stream":"downstream","attributes":{"latency":%d}}`, half)),
	}
}

// startSlow starts a proxy in front of an endpoint.
func startSlow(endpoint string, how []slowdown) (*slow, error) {
	to, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // it speaks of each connection that ends
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(server, "store", "127.0.0.1:0", to.Host)
	for _, s := range how {
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(string(s))); err != nil {
			return nil, fmt.Errorf("slow down %s with %s: %w", endpoint, s, err)
		}
	}
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	return &slow{"http://" + p.Listen, p}, nil
}

// close ends the proxy and its connections.
func (s *slow) close() { s.proxy.Stop() }

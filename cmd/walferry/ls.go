package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/walferry/walferry/internal/history"
	"github.com/walferry/walferry/internal/objstore"
)

var lsCommand = &command{
	name:    "ls",
	args:    "[-json] [-price GB,PUTS] URL",
	summary: "show what of a database's past can be restored",
	run:     runLs,
	help: `
  URL     where the replica is, as for restore
  -json   one JSON object
  -price  what a GB costs per month and what 1000 PUTs cost, as in 0.023,0.005, which
          are those of S3 Standard in us-east-1 and what an s3 URL is reckoned with

A restore point is a state that restore -txid takes. In the timeline a bar stands where
files end, the higher the more there are (1, 2, 4… 64), dots are what one file
spans, a diamond is a snapshot and a triangle a mark. Times are local. Those of
merged files in a bucket are when they were written, which is up to an hour late.
`,
}

// prices are in dollars.
type prices struct {
	GB   float64 // of 2^30 bytes, per month
	Puts float64 // per 1000
}

// standard are S3 Standard's in us-east-1, the first 50 TB.
var standard = prices{GB: 0.023, Puts: 0.005}

func runLs(ctx context.Context, c *command, args []string, stdout, _ io.Writer) error {
	fs := c.flags()
	asJSON, priceText := fs.Bool("json", false, ""), fs.String("price", "", "")
	rest, err := c.parse(fs, args, 1, stdout)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return &errUsage{"ls: no URL given: where is the replica?", c}
	}
	var price *prices
	if strings.HasPrefix(rest[0], "s3:") {
		price = &standard
	}
	if *priceText != "" {
		if price, err = parsePrices(*priceText); err != nil {
			return &errUsage{err.Error(), c}
		}
	}
	store, err := objstore.New(rest[0], objstore.Options{})
	if err != nil {
		return err
	}
	h, err := history.List(ctx, store)
	if err != nil {
		return err
	}
	s, err := survey(ctx, h, store.String(), price)
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	_, err = io.WriteString(stdout, s.text(time.Now()))
	return err
}

func parsePrices(s string) (*prices, error) {
	gb, puts, ok := strings.Cut(s, ",")
	var p prices
	var err1, err2 error
	p.GB, err1 = strconv.ParseFloat(strings.TrimSpace(gb), 64)
	p.Puts, err2 = strconv.ParseFloat(strings.TrimSpace(puts), 64)
	if !ok || err1 != nil || err2 != nil || !(p.GB >= 0 && p.Puts >= 0 && p.GB < 1e6 && p.Puts < 1e6) {
		return nil, fmt.Errorf("ls: -price %q: allowed are two prices in dollars, of a GB per month and of 1000 PUTs, as in 0.023,0.005", s)
	}
	return &p, nil
}

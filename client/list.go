package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// Page is a part of a list.
type Page struct {
	// Results are counters in the order of their keys. One that could not be read has an Err. A page may have none, although others
	// follow.
	Results []Result
	// Next continues the list after this page, with From. "" at the end.
	Next string
	// Complete is true if the list was asked to Wait, and has every write that was acknowledged before. Only the first page waits.
	Complete bool
}

// List lists the counters whose keys begin with the prefix; "" lists all. It requests the next page when the loop asks for it, and ends
// after an error:
//
//	for page, err := range c.List(ctx, "page:", client.Limit(1000)) {
//		if err != nil {
//			return err
//		}
//		for _, result := range page.Results {
//			...
//		}
//	}
//
// A counter that exists during the whole list is on exactly one page. One that was never flushed is missing, unless the list waits: see
// Wait and Page.Complete.
func (c *Client) List(ctx context.Context, prefix string, opts ...Option) iter.Seq2[Page, error] {
	return func(yield func(Page, error) bool) {
		o, err := options(kindList, opts)
		if err != nil {
			yield(Page{}, err)
			return
		}
		for {
			page, err := c.page(ctx, prefix, &o)
			if !yield(page, err) || err != nil || page.Next == "" {
				return
			}
			o.cursor, o.waits = page.Next, false
		}
	}
}

// page requests one page.
func (c *Client) page(ctx context.Context, prefix string, o *callOptions) (Page, error) {
	query := url.Values{"prefix": {prefix}}
	if o.limit > 0 {
		query.Set("limit", strconv.Itoa(o.limit))
	}
	if o.cursor != "" {
		query.Set("cursor", o.cursor)
	}
	r := &request{doing: "list " + prefix, method: http.MethodGet, path: "/v1/counters?" + query.Encode(), safe: true}
	if o.waits {
		r.header, r.patience = map[string]string{"Prefer": o.prefer()}, o.wait
	}
	a, err := c.send(ctx, r)
	if err != nil {
		return Page{}, err
	}
	var list struct {
		Next string `json:"next_cursor"`
	}
	if err := a.decode(&list); err != nil {
		return Page{}, r.unreadable(err)
	}
	results, err := r.results(a, "counters", -1)
	return Page{Results: results, Next: list.Next, Complete: o.waits && a.status == http.StatusOK}, err
}

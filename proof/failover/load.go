package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	// requestTimeout is longer than the api's time limit for Redis, so that the api nearly always answers first.
	requestTimeout = 15 * time.Second
	// refusedPause is the wait after a refusal.
	refusedPause = 5 * time.Millisecond
)

// load sends increments until stop is called.
type load struct {
	ledger *ledger
	http   http.Client
	apis   []*world.Process
	limit  *rate.Limiter

	stop  context.CancelFunc
	ended sync.WaitGroup
}

// start starts the clients. Each writes the keys of one group in turn, so that one master that does not answer delays only clients of its
// own keys. With several apis, each has clients for all keys.
func (l *load) start(ctx context.Context, groups [][]*account, clients int) {
	during, stop := context.WithCancel(ctx)
	l.stop = stop
	each := max(1, (clients+len(groups)*len(l.apis)-1)/(len(groups)*len(l.apis)))
	for _, group := range groups {
		for api := range l.apis {
			for i := range each {
				l.ended.Go(func() { l.client(during, ctx, api, group, i, each) })
			}
		}
	}
}

// client writes every each-th key of the group in turn. Only hard cancels a request in flight.
func (l *load) client(ctx, hard context.Context, api int, group []*account, first, each int) {
	for {
		for i := first; i < len(group); i += each {
			if l.limit.Wait(ctx) != nil {
				return
			}
			if !l.increment(hard, api, group[i]) && world.Sleep(ctx, refusedPause) != nil {
				return
			}
		}
	}
}

// increment sends one increment, and reports whether it was acknowledged.
func (l *load) increment(ctx context.Context, api int, a *account) bool {
	sent := time.Now()
	status, body, err := world.Send(ctx, &l.http, http.MethodPost,
		l.apis[api].URL+"/v1/counters/"+url.PathEscape(a.key)+"/increment", `{"by":1}`, "")
	outcome, reason := judge(status, body, err)
	l.ledger.count(reason)
	switch outcome {
	case world.Acknowledged:
		a.acknowledge(api, sent)
		l.ledger.acknowledged(api, sent)
		return true
	case world.Indeterminate:
		a.leaveOpen()
	case world.Refused:
	}
	return false
}

// judge returns the outcome of a request with its reason.
func judge(status int, body []byte, err error) (world.Outcome, string) {
	if world.NotSent(err) {
		return world.Refused, "no connection"
	}
	if err != nil {
		return world.Indeterminate, "no answer"
	}
	if status < http.StatusMultipleChoices {
		return world.Acknowledged, "acknowledged"
	}
	var problem struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		return world.Indeterminate, "unreadable answer"
	}
	outcome, expected := world.OutcomeOf(problem.Code)
	if !expected {
		problem.Code = "unexpected " + problem.Code
	}
	return outcome, problem.Code
}

// end stops the clients, and blocks until each request is answered.
func (l *load) end() {
	l.stop()
	l.ended.Wait()
	l.http.CloseIdleConnections()
}

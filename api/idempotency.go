package api

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	headerIdempotencyKey = "Idempotency-Key"
	headerReplayed       = "Idempotent-Replayed"
)

// requestIdempotencyKey returns the request's Idempotency-Key, "" if it has none. Its bytes are taken as they are: where a
// client sends it in quotes, the quotes are a part of it.
func requestIdempotencyKey(h http.Header) (string, error) {
	given := h[headerIdempotencyKey]
	switch len(given) {
	case 0:
		return "", nil
	case 1:
		return counter.ParseID(given[0])
	default:
		return "", &counter.Error{
			Code:   counter.CodeInvalidIdempotencyKey,
			Detail: fmt.Sprintf("%s is there %d times: it takes one", headerIdempotencyKey, len(given)),
		}
	}
}

// identify gives each operation of a batch that has no ID of its own one that is made of the request's: by its place among
// those on its key, so that the batch may be repeated, also in another order of its keys. No client can give such an ID:
// it has a control character in it.
func identify(plan []planned, request string) {
	if request == "" {
		return
	}
	places := make(map[counter.Key]int, len(plan))
	for i, p := range plan {
		if p.err != nil || p.ID != "" {
			continue
		}
		plan[i].ID = request + "\x01" + strconv.Itoa(places[p.Key])
		places[p.Key]++
	}
}

// allReplayed reports that nothing of a batch was carried out by this request.
func allReplayed(results []counter.Result) bool {
	for _, r := range results {
		if !r.Replayed {
			return false
		}
	}
	return true
}

// sayReplayed tells the client that this is the answer to an earlier request.
func sayReplayed(c echo.Context, replayed bool) {
	if replayed {
		c.Response().Header().Set(headerReplayed, "true")
	}
}

package api_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
)

func TestStreamNeedsTheScopeWrite(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 0)
	for header, status := range map[string]int{
		"X-None: nobody": 401, "Authorization: Bearer wrong": 401, "Authorization: Bearer reader": 403, "Authorization: Bearer operator": 403,
		"Authorization: Bearer writer": 200, "Authorization: Bearer all": 200,
	} {
		require.Equal(t, status, b.send(t, http.MethodPost, stream, good, ndjson, header).StatusCode, header)
	}
	require.EqualValues(t, 2, *b.send(t, http.MethodGet, "/v1/counters/warm", "", "Authorization: Bearer all").value(t).Version)
}

// Only the operations outside of the prefix fail.
func TestStreamChecksThePrefixOfEachLine(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 0)

	got := b.stream(t, `{"op":"increment","key":"team1/a"}
{"op":"increment","key":"team10/a"}
{"op":"increment","key":"team1/a"}
`, "Authorization: Bearer team")

	require.Equal(t, unsynced("team1/a", 1, 1), parseLine(t, got[0]).value)
	require.Equal(t, "forbidden", parseLine(t, got[1]).Error.Code)
	require.Equal(t, unsynced("team1/a", 2, 2), parseLine(t, got[2]).value)
	require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/v1/counters/team10%2Fa", "", "Authorization: Bearer all").StatusCode)
}

// A stream is as fast as the rate of its key.
func TestStreamWaitsForTheRateOfItsKey(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 100) // 200 at once
	begun := time.Now()

	got := b.stream(t, strings.Repeat(good+"\n", 300), "Authorization: Bearer writer", minimal)

	require.Equal(t, []string{`{"lines":300,"applied":300,"failed":0,"done":true}`}, got)
	require.GreaterOrEqual(t, time.Since(begun), 900*time.Millisecond)
}

// Lines that wait for the rate are not carried out at shutdown, and the answer says so.
func TestShutdownEndsAStreamThatWaitsForItsRate(t *testing.T) {
	t.Parallel()
	shutdown, stop := context.WithCancel(t.Context())
	b := serve(t, applied, api.Options{Shutdown: shutdown, Keys: keyring(t, 1, "writer:write")}) // 2 at once
	s := b.open(t, "Authorization: Bearer writer")
	s.write(t, strings.Repeat(good+"\n", 100))
	require.Equal(t, "warm", s.next(t).Key)

	stop()

	last := s.next(t)
	answered := int64(1)
	for ; !last.Done; answered++ {
		last = s.next(t)
	}
	require.Equal(t, "overloaded", last.Error.Code)
	require.Equal(t, answered, last.Lines)
	require.Equal(t, answered, last.Applied)
	require.Less(t, answered, int64(10))
}

// A stream may stay open for long, so its key is looked up again for each group.
func TestStreamEndsWhenItsKeyIsRemovedOrChanged(t *testing.T) {
	t.Parallel()
	for code, entry := range map[string]string{"unauthorized": "other:write", "forbidden": "writer:read"} {
		ring := keyring(t, 0, "writer:write")
		b := serve(t, applied, api.Options{Keys: ring})
		s := b.open(t, "Authorization: Bearer writer")
		s.write(t, good+"\n")
		require.Equal(t, "warm", s.next(t).Key)

		require.NoError(t, ring.Replace(keysOf(t, entry)))
		s.write(t, good+"\n")

		last := s.next(t)
		require.True(t, last.Done)
		require.Equal(t, code, last.Error.Code)
		require.EqualValues(t, 1, last.Applied)
	}
	ring := keyring(t, 0, "writer:write")
	b := serve(t, applied, api.Options{Keys: ring})
	s := b.open(t, "Authorization: Bearer writer")
	s.write(t, good+"\n")
	require.Equal(t, "warm", s.next(t).Key)
	require.NoError(t, ring.Replace(keysOf(t, "writer:write:team1/")))
	s.write(t, good+"\n")
	require.Equal(t, "forbidden", s.next(t).Error.Code)
}

func TestEmptyLinesCostSomethingOfTheRate(t *testing.T) {
	t.Parallel()
	b := setupKeys(t, 10) // 20 at once
	begun := time.Now()

	got := b.stream(t, strings.Repeat("\n", 30_000)+good+"\n", "Authorization: Bearer writer", minimal)

	require.GreaterOrEqual(t, time.Since(begun), time.Second)
	require.Contains(t, got[0], "1000 empty lines")
	require.Equal(t, `{"lines":30001,"applied":1,"failed":30,"done":true}`, got[len(got)-1])
}

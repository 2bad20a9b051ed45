package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

const (
	stream  = "/v1/stream"
	ndjson  = "Content-Type: application/x-ndjson"
	minimal = "Prefer: return=minimal"
)

// stream sends a whole stream, and returns the lines of the answer.
func (b *bundle) stream(t *testing.T, body string, headers ...string) []string {
	t.Helper()
	if !strings.Contains(strings.Join(headers, "\r\n"), "Content-Type") {
		headers = append(headers, ndjson)
	}
	a := b.send(t, http.MethodPost, stream, body, headers...)
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	require.Equal(t, "application/x-ndjson", a.Header.Get("Content-Type"))
	require.True(t, strings.HasSuffix(a.text, "\n"))
	return strings.Split(strings.TrimSuffix(a.text, "\n"), "\n")
}

// streamLine is any line of an answer.
type streamLine struct {
	value

	Line    int64    `json:"line"`
	Lines   int64    `json:"lines"`
	Applied int64    `json:"applied"`
	Failed  int64    `json:"failed"`
	Done    bool     `json:"done"`
	Error   *problem `json:"error"`
}

func parseLine(t testing.TB, line string) streamLine {
	t.Helper()
	var l streamLine
	require.NoError(t, json.Unmarshal([]byte(line), &l), line)
	return l
}

// applied are Counters that apply each operation.
var applied = always(counter.Result{Counter: counter.Counter{Value: 1, Version: 1, Known: true, Exists: true}})

func TestStreamAnswersEachLineInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "bounded", "5")

	got := b.stream(t, `{"op":"increment","key":"a","by":2,"id":"1"}
{"op":"set","key":"b","value":7}

{"op":"delete","key":"b"}`+"\r\n \t\r\n"+`{"op":"increment","key":"a","by":2,"id":"1"}
{"op":"increment","key":"bounded","by":-6,"min":0}
{"op":"increment","key":""}
  {"op":"increment","key":"a"}  `)

	bounds, key := parseLine(t, got[4]), parseLine(t, got[5])
	require.Equal(t, "out_of_bounds", bounds.Error.Code)
	require.EqualValues(t, 7, bounds.Line)
	require.Equal(t, "invalid_key", key.Error.Code)
	require.EqualValues(t, 8, key.Line)
	require.Equal(t, []string{
		`{"key":"a","value":2,"version":1,"synced":false}`,
		`{"key":"b","value":7,"version":1,"synced":false}`,
		`{"key":"b","deleted":true,"version":2,"synced":false}`,
		`{"key":"a","value":2,"version":1,"synced":false,"replayed":true}`,
		`{"key":"a","value":3,"version":2,"synced":false}`,
		`{"lines":9,"applied":5,"failed":2,"done":true}`,
	}, slices.Concat(got[:4], got[6:]))
}

func TestStreamOfNothing(t *testing.T) {
	t.Parallel()
	b := serve(t, applied, api.Options{})
	for _, body := range []string{"", "\n\n", " \r\n"} {
		require.Equal(t, []string{`{"lines":0,"applied":0,"failed":0,"done":true}`}, b.stream(t, body), "%q", body)
	}
}

func TestBadLinesDoNotStopTheStream(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := []struct{ line, code, detail string }{
		{`hello`, "invalid_body", "the line is not valid JSON"},
		{`{"op":"increment","key":"a"`, "invalid_body", "the line is not valid JSON: it ends too early"},
		{`{"op":"increment","key":"a"}{"op":"increment","key":"a"}`, "invalid_body", "data after the JSON object"},
		{`{"op":"increment","key":"a"},`, "invalid_body", "the line is not valid JSON"},
		{`[{"op":"increment","key":"a"}]`, "invalid_body", "the line must be an object, not a list"},
		{`{"operations":[{"op":"increment","key":"a"}]}`, "unknown_field", `the line has an unknown field "operations"`},
		{`{"op":"increment","key":"a","key":"a"}`, "invalid_body", "twice"},
		{`{"op":"increment","key":"a` + "\xff" + `"}`, "invalid_body", "UTF-8"},
		{"\ufeff" + `{"op":"increment","key":"a"}`, "invalid_body", "the line is not valid JSON"},
		{`{"op":"increment","key":"a","by":` + strings.Repeat("[", 20_000), "invalid_body", "the line is not valid JSON"},
		{`{"op":"increment","key":"` + longestKey + `k"}`, "invalid_key", "256 bytes"},
		{`{"op":"increment","key":"a","by":1.5}`, "invalid_body", "integer"},
		{`{"op":"increment","key":"a","id":""}`, "invalid_idempotency_key", ""},
		{`{"op":"increment","key":"a"}` + strings.Repeat(" ", api.MaxLineBytes), "body_too_large", "the line is longer than 65536 bytes"},
		{strings.Repeat("x", 5*api.MaxLineBytes), "body_too_large", "the line is longer than 65536 bytes"},
	}
	var body strings.Builder
	for _, c := range bad {
		body.WriteString(c.line + "\n" + `{"op":"increment","key":"good"}` + "\n")
	}

	got := b.stream(t, body.String())

	require.Len(t, got, 2*len(bad)+1)
	for i, c := range bad {
		l := parseLine(t, got[2*i])
		require.NotNil(t, l.Error, got[2*i])
		require.Equal(t, c.code, l.Error.Code, l.Error.Detail)
		require.Contains(t, l.Error.Detail, c.detail)
		require.Less(t, len(got[2*i]), 1000, "an error does not repeat the line")
		require.EqualValues(t, 2*i+1, l.Line)
		require.Equal(t, unsynced("good", int64(i+1), int64(i+1)), parseLine(t, got[2*i+1]).value)
	}
	require.Equal(t, streamLine{Lines: int64(2 * len(bad)), Applied: int64(len(bad)), Failed: int64(len(bad)), Done: true}, parseLine(t, got[2*len(bad)]))
	require.Equal(t, http.StatusNotFound, b.send(t, http.MethodGet, "/v1/counters/a", "").StatusCode)
}

func TestLongestLineIsAccepted(t *testing.T) {
	t.Parallel()
	b := serve(t, applied, api.Options{})
	line := `{"op":"increment","key":"a"}`
	line += strings.Repeat(" ", api.MaxLineBytes-len(line))
	for _, body := range []string{line, line + "\n", line + "\n" + line + "\n"} {
		got := b.stream(t, body)
		require.Zero(t, parseLine(t, got[len(got)-1]).Failed)
	}
	require.EqualValues(t, 1, parseLine(t, b.stream(t, line+" ")[1]).Failed)
}

// A key whose bytes are all escaped still fits.
func TestEscapedLineFits(t *testing.T) {
	t.Parallel()
	b := serve(t, applied, api.Options{})
	line := `{"op":"increment","key":"` + strings.Repeat(`\u006b`, 255) + `","id":"` + strings.Repeat(`\u0031`, 128) + `"}`
	require.Equal(t, longestKey, parseLine(t, b.stream(t, line)[0]).Key)
}

func TestStreamKeepsTheOrderOnOneKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const pairs = 3 * api.MaxGroupLines
	var body strings.Builder
	for i := range pairs {
		fmt.Fprintf(&body, `{"op":"set","key":"a","value":%d}`+"\n"+`{"op":"increment","key":"a","by":3}`+"\n", i*10)
	}

	got := b.stream(t, body.String())

	require.Len(t, got, 2*pairs+1)
	for i, line := range got[:2*pairs] {
		require.Equal(t, unsynced("a", int64(i/2*10+i%2*3), int64(i+1)), parseLine(t, line).value, i)
	}
}

func TestMinimalStreamAnswersWithSummaries(t *testing.T) {
	t.Parallel()
	b := serve(t, applied, api.Options{})
	line := `{"op":"increment","key":"a"}` + "\n"

	got := b.stream(t, strings.Repeat(line, 12_345)+"\nbad\n"+strings.Repeat(line, 12_655), minimal)

	require.Equal(t, `{"lines":10000,"applied":10000,"failed":0}`, got[0])
	l := parseLine(t, got[1])
	require.Equal(t, "invalid_body", l.Error.Code)
	require.EqualValues(t, 12_347, l.Line)
	require.Equal(t, []string{
		`{"lines":20001,"applied":19999,"failed":1}`, `{"lines":25002,"applied":25000,"failed":1,"done":true}`,
	}, got[2:])
}

// A client that sends everything before it reads must not deadlock.
func TestMinimalStreamReportsBoundedErrors(t *testing.T) {
	t.Parallel()
	b := serve(t, applied, api.Options{})

	got := b.stream(t, strings.Repeat("bad\n", 30_000), minimal)

	require.Len(t, got, api.MaxErrorLines+3+1)
	require.EqualValues(t, api.MaxErrorLines, parseLine(t, got[api.MaxErrorLines-1]).Line)
	require.Equal(t, `{"lines":30000,"applied":0,"failed":30000,"done":true}`, got[len(got)-1])
}

// openStream is a stream that a test sends and reads at the same time.
type openStream struct {
	*http.Response

	lines *bufio.Scanner
	send  *io.PipeWriter
}

// open starts a stream. It returns when the headers of the answer have arrived.
func (b *bundle) open(t *testing.T, headers ...string) *openStream {
	t.Helper()
	body, send := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.addr+stream, body)
	require.NoError(t, err)
	for _, h := range append(headers, ndjson) {
		name, v, _ := strings.Cut(h, ": ")
		request.Header.Set(name, v)
	}
	response, err := new(http.Transport).RoundTrip(request)
	require.NoError(t, err)
	t.Cleanup(func() {
		cancel()
		_ = send.CloseWithError(context.Canceled)
		_ = response.Body.Close()
	})
	return &openStream{Response: response, lines: bufio.NewScanner(response.Body), send: send}
}

func (s *openStream) write(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(s.send, text)
	require.NoError(t, err)
}

// next reads a line of the answer.
func (s *openStream) next(t *testing.T) streamLine {
	t.Helper()
	require.True(t, s.lines.Scan(), "%v", s.lines.Err())
	return parseLine(t, s.lines.Text())
}

// A client may read each answer before it sends the next line: nothing waits for more lines.
func TestStreamAnswersWhileItGoes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.open(t)
	for i := range int64(50) {
		s.write(t, `{"op":"increment","key":"a"}`+"\n")
		require.Equal(t, unsynced("a", i+1, i+1), s.next(t).value)
	}
	s.write(t, `{"op":"increment","key":"a"}`) // the end of the body ends the line
	require.NoError(t, s.send.Close())
	require.Equal(t, unsynced("a", 51, 51), s.next(t).value)
	require.Equal(t, streamLine{Lines: 51, Applied: 51, Done: true}, s.next(t))
	require.False(t, s.lines.Scan())
}

func TestStreamMayExpectContinue(t *testing.T) {
	t.Parallel()
	b := serve(t, applied, api.Options{})
	line := `{"op":"increment","key":"a"}` + "\n"
	c := b.startRequest(t, stream, line, ndjson)

	require.NoError(t, c.send(len(line)))

	a := c.answer(t)
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.True(t, strings.HasSuffix(a.text, `{"lines":1,"applied":1,"failed":0,"done":true}`+"\n"), a.text)
}

func TestStreamMayBeCompressed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var body strings.Builder
	for range 5000 {
		body.WriteString(`{"op":"increment","key":"a"}` + "\n")
	}
	for i, c := range []struct{ coding, body string }{
		{isGzip, gzipped(t, body.String())}, {isZstd, zstdCompressed(t, body.String())}, {"Content-Encoding: identity", body.String()},
	} {
		got := b.stream(t, c.body, c.coding, "Content-Type: application/ndjson; charset=utf-8")
		require.Len(t, got, 5001)
		require.Equal(t, unsynced("a", int64(5000*(i+1)), int64(5000*(i+1))), parseLine(t, got[4999]).value)
	}
}

// What was compressed and flushed is answered at once.
func TestCompressedStreamAnswersWhileItGoes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for coding, open := range compressors(t) {
		s := b.open(t, "Content-Encoding: "+coding)
		w := open(s.send)
		for i := range int64(5) {
			_, err := io.WriteString(w, `{"op":"increment","key":"`+coding+`"}`+"\n")
			require.NoError(t, err)
			require.NoError(t, w.Flush())
			require.Equal(t, unsynced(coding, i+1, i+1), s.next(t).value)
		}
		require.NoError(t, w.Close())
		require.NoError(t, s.send.Close())
		require.True(t, s.next(t).Done)
	}
}

// Only the complete lines of a stream that was cut are carried out, and the answer says that it was cut.
func TestCutStreamAppliesItsCompleteLines(t *testing.T) {
	t.Parallel()
	b := setup(t)
	line := `{"op":"increment","key":"a"}` + "\n"
	cut := strings.Repeat(line, 3) + `{"op":"increment","key":"a"}` // it is JSON, but its line has not ended
	gz := gzipped(t, strings.Repeat(line, 3))
	zs := zstdCompressed(t, strings.Repeat(line, 3)) + zstdCompressed(t, line)[:12]
	for name, c := range map[string]struct{ body, header, detail string }{
		"in a body of a known length": {cut, fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: none", len(cut)+100), "incomplete"},
		"in a chunk":                  {fmt.Sprintf("%x\r\n%s", len(cut)+100, cut), isChunked, "incomplete"},
		"between two chunks":          {fmt.Sprintf("%x\r\n%s\r\n", len(cut), cut), isChunked, "incomplete"},
		"between two zstd frames": {
			fmt.Sprintf("%x\r\n%s\r\n", len(zstdCompressed(t, strings.Repeat(line, 3))), zstdCompressed(t, strings.Repeat(line, 3))),
			isChunked + "\r\n" + isZstd, "incomplete",
		},
		"in its gzip data": {chunked(gz[:len(gz)-4]), isChunked + "\r\n" + isGzip, "not valid gzip: it ends too early"},
		"in its zstd data": {chunked(zs), isChunked + "\r\n" + isZstd, "not valid zstd: it ends too early"},
	} {
		before := b.valueOf(t, "a")
		connection := b.dial(t)
		request := strings.Replace(requestText(http.MethodPost, stream, c.body, ndjson, c.header), "Transfer-Encoding: none\r\n", "", 1)
		_, err := io.WriteString(connection, request)
		require.NoError(t, err)
		require.NoError(t, connection.(interface{ CloseWrite() error }).CloseWrite())

		a := readAnswer(t, connection, request)
		_ = connection.Close()

		got := strings.Split(strings.TrimSuffix(a.text, "\n"), "\n")
		last := parseLine(t, got[len(got)-1])
		require.True(t, last.Done, name)
		require.NotNil(t, last.Error, "%s: %s", name, a.text)
		require.Equal(t, "invalid_body", last.Error.Code, name)
		require.Contains(t, last.Error.Detail, c.detail, name)
		require.EqualValues(t, 3, last.Applied, name)
		require.EqualValues(t, 3, last.Lines, name)
		require.Equal(t, before+3, b.valueOf(t, "a"), name)
	}
}

// valueOf returns the value of a counter, 0 if there is none.
func (b *bundle) valueOf(t *testing.T, key string) int64 {
	t.Helper()
	a := b.send(t, http.MethodGet, "/v1/counters/"+key, "")
	if a.StatusCode == http.StatusNotFound {
		return 0
	}
	return *a.value(t).Value
}

// flushWriter compresses, and sends what it has when asked to.
type flushWriter interface {
	io.WriteCloser

	Flush() error
}

// compressors returns a compressor for each coding.
func compressors(t *testing.T) map[string]func(io.Writer) flushWriter {
	t.Helper()
	return map[string]func(io.Writer) flushWriter{
		"gzip": func(w io.Writer) flushWriter { return gzip.NewWriter(w) },
		"zstd": func(w io.Writer) flushWriter {
			z, err := zstd.NewWriter(w)
			require.NoError(t, err)
			return z
		},
	}
}

func TestBadStreamsAreRejected(t *testing.T) {
	t.Parallel()
	b := serve(t, applied, api.Options{})
	for header, code := range map[string]string{
		ndjson + "\r\nIdempotency-Key: a":             "invalid_idempotency_key",
		ndjson + "\r\nPrefer: durability=everywhere":  "unsupported_durability",
		ndjson + "\r\nContent-Encoding: br":           "unsupported_media_type",
		ndjson + "\r\nIf-Match: *":                    "invalid_precondition",
		"Content-Type: application/json":              "unsupported_media_type",
		"Content-Type: application/ndjson; charset=x": "unsupported_media_type",
	} {
		a := b.send(t, http.MethodPost, stream, good, header)
		require.Equal(t, code, a.problem(t).Code, header)
		require.Equal(t, api.Statuses()[counter.Code(code)], a.StatusCode)
	}
	require.Equal(t, "gzip, zstd", b.send(t, http.MethodPost, stream, good, ndjson, "Content-Encoding: br").Header.Get("Accept-Encoding"))
}

// wait and durability hold for each group.
func TestStreamPassesItsPreferencesOn(t *testing.T) {
	t.Parallel()
	var got writepath.Options
	b := serve(t, counters(func(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
		got = o
		return applied(ctx, ops, o)
	}), api.Options{})

	a := b.send(t, http.MethodPost, stream, good, ndjson, "Prefer: return=minimal, wait=3, durability=disk")

	require.Equal(t, "return=minimal, wait=3, durability=disk", a.Header.Get("Preference-Applied"))
	require.Equal(t, writepath.Options{Minimal: true, Wait: 3 * time.Second, Durability: writepath.OnDisk}, got)
}

// A bug ends the answer without a summary, so that the client sees that it is incomplete.
func TestPanicCutsTheAnswerOfAStream(t *testing.T) {
	t.Parallel()
	b := serve(t, counters(func(context.Context, []counter.Operation, writepath.Options) []counter.Result { panic("a bug") }), api.Options{})
	s := b.open(t)
	s.write(t, good+"\n")
	require.False(t, s.lines.Scan())
	require.Error(t, s.lines.Err())
	require.Contains(t, b.log.String(), "a bug")

	c := b.startRequest(t, stream, good, ndjson) // with Expect: the headers come after the first group
	require.NoError(t, c.send(len(good)))
	require.Equal(t, "internal", c.answer(t).problem(t).Code)
}

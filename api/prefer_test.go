package api_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
)

func TestReturnPreferenceIsParsedAsInRFC7240(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		headers []string
		minimal bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"return=minimal"}, true},
		{[]string{"Return=Minimal"}, true},
		{[]string{` return = "minimal" `}, true},
		{[]string{"return=representation"}, false},
		{[]string{"return"}, false},
		{[]string{"return="}, false},
		{[]string{"minimal"}, false},
		{[]string{"return=minimal; foo=bar"}, true},
		{[]string{`return=minimal ; foo="a,b;c"`}, true},
		{[]string{"respond-async, return=minimal"}, true},
		{[]string{"respond-async", "wait=10", "return=minimal"}, true},
		{[]string{"respond-async;return=minimal"}, false},
		{[]string{`x="return=minimal"`}, false},
		{[]string{`x="a, return=minimal"`}, false},
		{[]string{`x="\", return=minimal"`}, false},
		{[]string{`x="\\", return=minimal`}, true},
		{[]string{`x="open, return=minimal`}, false},
		{[]string{",, ,return=minimal,"}, true},
		{[]string{"return=representation, return=minimal"}, false},
		{[]string{"return=minimal, return=representation"}, true},
		{[]string{"return=representation", "return=minimal"}, false},
		{[]string{"return=minimal2"}, false},
		{[]string{"xreturn=minimal"}, false},
	} {
		require.Equal(t, c.minimal, api.PrefersMinimal(http.Header{"Prefer": c.headers}), "%q", c.headers)
	}
}

func TestMinimalWriteIsAppliedAndAnswered204(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertRow(t, "cold", 7, 3)
	prefer := []string{"prefer: respond-async", `PREFER: return="minimal"; x=1`}

	for _, c := range []struct{ method, target, body string }{
		{http.MethodPost, "/v1/counters/cold/increment", `{"by":2}`},
		{http.MethodPut, "/v1/counters/new", `{"value":5}`},
		{http.MethodDelete, "/v1/counters/gone", ""},
	} {
		a := b.send(t, c.method, c.target, c.body, prefer...)
		require.Equal(t, http.StatusNoContent, a.StatusCode, a.text)
		require.Equal(t, "return=minimal", a.Header.Get("Preference-Applied"))
		require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	}

	require.Equal(t, unsynced("cold", 9, 4), b.get(t, "cold"))
	require.Equal(t, unsynced("new", 5, 1), b.get(t, "new"))
}

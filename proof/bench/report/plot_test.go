package report_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/bench/report"
)

// requireXML requires that a document is well-formed.
func requireXML(t *testing.T, document string) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(document))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

func TestPlotsAreWellFormedXML(t *testing.T) {
	t.Parallel()
	for _, log := range []bool{true, false} {
		chart := report.Bars("a < b & c", "/s", []report.Bar{{Label: `"x"`, Value: 0}, {Label: "<y>", Value: 52000, Text: "52,000/s", Mark: true}}, log)
		requireXML(t, chart)
		require.Contains(t, chart, "&lt;y&gt;")
		require.NotContains(t, chart, "NaN")
		require.NotContains(t, chart, "Inf")
		requireXML(t, report.Bars("none", "", nil, log))
	}
	chart := report.Curves("latency", "writes/s", " ms", []report.Curve{{Label: "p50", X: []float64{1000, 20000}, Y: []float64{0.3, 12}}})
	requireXML(t, chart)
	require.NotContains(t, chart, "NaN")
	requireXML(t, report.Curves("none", "", "", nil))
}

func TestPlotsFollowTheTheme(t *testing.T) {
	t.Parallel()
	require.Contains(t, report.Bars("x", "", nil, true), "prefers-color-scheme:dark")
}

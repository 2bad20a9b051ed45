package doctor

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var sampleFindings = []Finding{
	{Name: "redis", Status: OK, Detail: "version 7.0.15"},
	{Name: "redis memory policy", Status: Refused, Detail: "allkeys-lru", Fix: "redis-cli CONFIG SET <that>"},
}

func TestPrintIsAnAlignedTable(t *testing.T) {
	t.Parallel()
	var out strings.Builder

	require.NoError(t, Print(&out, sampleFindings))

	require.Equal(t, strings.Join([]string{
		"STATUS   CHECK                FOUND",
		"ok       redis                version 7.0.15",
		"refused  redis memory policy  allkeys-lru",
		"                              -> redis-cli CONFIG SET <that>",
		"",
	}, "\n"), out.String())
}

func TestPrintJSONCanBeReadBack(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, PrintJSON(&out, sampleFindings))

	var findings []Finding
	require.NoError(t, json.Unmarshal([]byte(out.String()), &findings))

	require.Equal(t, sampleFindings, findings)
	require.Contains(t, out.String(), "<that>", "not escaped")
}

func TestTheWorstFindingDecides(t *testing.T) {
	t.Parallel()
	of := func(all ...Status) Status {
		var findings []Finding
		for _, s := range all {
			findings = append(findings, Finding{Status: s})
		}
		return Worst(findings)
	}

	require.Equal(t, OK, of())
	require.Equal(t, Warning, of(OK, Warning, OK))
	require.Equal(t, Refused, of(Warning, Refused, OK, Warning))
}

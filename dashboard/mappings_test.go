package dashboard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// twoMappings are a file of the dashboard.
const twoMappings = `mappings:
  - {name: likes, key: "post:{id:int}:likes", table: posts, where: {id: "{id}"}, set: likes}
  - {name: views, key: "post:{id:int}:views", table: stats.posts, where: {id: "{id}"}, set: views, missing: insert}
`

// parsed returns the mappings of a file, or nil for "".
func parsed(t *testing.T, file string) *mapping.Mappings {
	t.Helper()
	if file == "" {
		return nil
	}
	m, err := mapping.Parse([]byte(file))
	require.NoError(t, err)
	return m
}

// mapped returns a frame whose worker has these mappings.
func mapped(m *mapping.Mappings) *frame {
	f := &frame{Snapshot: well()}
	f.Processes[3].Settings.Mappings = m.Digest()
	f.Processes[3].Counts.Mappings = make(map[string]health.MappingCounts)
	for _, one := range m.All() {
		f.Processes[3].Counts.Mappings[one.Name] = health.MappingCounts{}
	}
	return f
}

// mappingsOf returns the parts of /mappings of a dashboard with this file and this count of dead letters.
func mappingsOf(t *testing.T, f *frame, file string, dead deadCount) map[string]string {
	t.Helper()
	p := &mappingsPage{
		page: newPage(&shared{}, mappingsPath, "Mappings", "mappings.html"), mappings: parsed(t, file),
		dead: &mappedDead{last: dead, wanted: make(chan struct{}, 1)},
	}
	parts := make(map[string]string)
	for _, name := range p.parts() {
		text, err := p.part(name, p.data(f))
		require.NoError(t, err)
		parts[name] = text
	}
	return parts
}

func TestMappingsHaveTheirCounts(t *testing.T) {
	t.Parallel()
	f := mapped(parsed(t, twoMappings))
	f.Processes[3].Counts.Mappings["likes"] = health.MappingCounts{Rows: 1_234_567, Missing: 1001}
	f.Processes[3].Counts.Mappings["views"] = health.MappingCounts{Rows: 5, Refused: 1002}
	f.Traffic = health.Traffic{Mapped: map[string]float64{"likes": 12}}
	parts := mappingsOf(t, f, twoMappings, deadCount{})
	require.Regexp(t, `(?s)likes<br><span class="pill good">ok</span>.*>post:\{id:int\}:likes<.*>public.posts.likes<.*ignore it</td>`+
		`.*1,234,567<br><span class="note">12/s</span></td>\s*<td[^>]*>1,001</td>\s*<td[^>]*>0</td>\s*<td[^>]*>0</td></tr>`+
		`.*views<br><span class="pill good">ok.*stats.posts.views<.*insert it</td>.*5<br>.*0/s<.*class="num warn">1,002</td>`, parts["mappings"])
	require.NotContains(t, parts["mappings"], "What to do")
	require.Contains(t, parts["summary"], "in the same transaction")
	require.NotContains(t, parts["summary"], "notice")
}

func TestDeadLettersOfMappingsAreCounted(t *testing.T) {
	t.Parallel()
	f := mapped(parsed(t, twoMappings))
	f.Dead = 9
	require.Regexp(t, `(?s)>–</span></td></tr>.*>–</span></td></tr>`, mappingsOf(t, f, twoMappings, deadCount{})["mappings"], "nobody has counted")
	counted := deadCount{at: time.Now(), letters: map[string]int64{"likes": 4}}
	require.Regexp(t, `(?s)<a class="bad" href="/dead\?q=mapping\+likes:">4</a></td></tr>.*>0</td></tr>`, mappingsOf(t, f, twoMappings, counted)["mappings"])
	counted.partial = true
	text := mappingsOf(t, f, twoMappings, counted)["mappings"]
	require.Regexp(t, `(?s)>at least 4</a>.*not all were counted</span></td></tr>`, text)
	require.Contains(t, text, "There are too many to count them all")
	f.Dead = 0
	require.Regexp(t, `(?s)>0</td></tr>.*>0</td></tr>`, mappingsOf(t, f, twoMappings, counted)["mappings"], "there are none at all now")
}

func TestABrokenMappingSaysWhyAndWhatToDo(t *testing.T) {
	t.Parallel()
	f := mapped(parsed(t, twoMappings))
	f.Processes[3].BrokenMappings = map[string]string{"views": `column "views" <does not> exist`}
	require.Regexp(t, `(?s)likes<br><span class="pill good">ok.*views<br><span class="pill bad">broken</span>`+
		`.*column &#34;views&#34; &lt;does not&gt; exist</span><br><a[^>]*runbook.md#afterwritemappingbroken"[^>]*>What to do</a>`,
		mappingsOf(t, f, twoMappings, deadCount{})["mappings"])
}

func TestOtherMappingsOfTheWorkersAreShown(t *testing.T) {
	t.Parallel()
	const other = `mappings:
  - {name: likes, key: "post:{id:int}:likes", table: posts, where: {id: "{id}"}, set: hearts}
  - {name: views, key: "post:{id:int}:views", table: stats.posts, where: {id: "{id}"}, set: views, missing: insert}
`
	const third = `mappings: [{name: third, key: "a:{id:int}", table: a, where: {id: "{id}"}, set: n}]`
	parts := mappingsOf(t, mapped(parsed(t, other)), twoMappings, deadCount{})
	require.Contains(t, parts["summary"], "mappings with the same names differ in it.</strong> Set <code>AFTERWRITE_MAPPINGS</code>")

	f := mapped(parsed(t, third))
	f.Processes[3].Counts.Mappings["third"] = health.MappingCounts{Rows: 7}
	parts = mappingsOf(t, f, twoMappings, deadCount{})
	require.Contains(t, parts["summary"], "A worker has another file than this dashboard.")
	require.Regexp(t, `(?s)likes<br><span class="pill warn">no worker has it.*>–<.*third<br><span class="pill warn">not in this dashboard&#39;s file.*not known here.*>7<br>`,
		parts["mappings"])

	parts = mappingsOf(t, f, "", deadCount{})
	require.Contains(t, parts["summary"], "This dashboard has no mappings, but workers have some.")
	require.Contains(t, parts["mappings"], "third")
	parts = mappingsOf(t, mapped(nil), twoMappings, deadCount{})
	require.Contains(t, parts["summary"], "A worker has no mappings, so it writes no columns.")
}

func TestMappingsAreExplainedIfThereAreNone(t *testing.T) {
	t.Parallel()
	parts := mappingsOf(t, mapped(nil), "", deadCount{})
	require.Contains(t, parts["mappings"], "There are no mappings.")
	require.Contains(t, parts["mappings"], `href="https://github.com/afterwrite/afterwrite/blob/main/docs/mappings.md"`)
	require.Empty(t, parts["summary"])
}

func TestMappingsSayWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	f := mapped(parsed(t, twoMappings))
	f.Processes = f.Processes[:3]
	parts := mappingsOf(t, f, twoMappings, deadCount{})
	require.Contains(t, parts["summary"], "No worker is running")
	require.Contains(t, parts["mappings"], "no worker runs")
	f.Unread = true
	parts = mappingsOf(t, f, twoMappings, deadCount{})
	require.Contains(t, parts["summary"], "Not known.")
	require.Contains(t, parts["mappings"], `<span class="pill ">not known</span>`)
	f.Failed = time.Second
	require.Contains(t, mappingsOf(t, f, twoMappings, deadCount{})["summary"], "Redis cannot be reached.")
	starting := &frame{Snapshot: health.Snapshot{Starting: true}}
	require.Contains(t, mappingsOf(t, starting, twoMappings, deadCount{})["summary"], "on its way")
	require.NotContains(t, mappingsOf(t, starting, "", deadCount{})["mappings"], "There are no mappings.")
}

package browser_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// startMapped starts a system with three mappings, one of which has a long name and a long key.
func startMapped(t *testing.T) *system {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mappings.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`mappings:
  - {name: post-likes, key: "post:{id:int}:likes", table: posts, where: {id: "{id}"}, set: likes}
  - {name: daily-views, key: "views:{post:int}:{day:date}", table: daily_views, where: {post: "{post}", day: "{day}"}, set: views, missing: insert}
  - name: reactions-of-all-members-of-a-workspace-in-each-of-its-channels
    key: "workspace:{workspace:uuid}:channel:{channel:text}:reactions"
    table: reactions_of_the_members_of_a_workspace
    where: {workspace: "{workspace}", channel: "{channel}"}
    set: number_of_reactions
    missing: dead
`), 0o600))
	return startWith(t, `CREATE TABLE public.posts (id bigint PRIMARY KEY, likes int NOT NULL DEFAULT 0 CONSTRAINT likes_not_negative CHECK (likes >= 0));
		INSERT INTO public.posts (id) SELECT n FROM generate_series(1, 100) AS n;
		CREATE TABLE public.daily_views (post bigint, day date, views bigint, PRIMARY KEY (post, day));
		CREATE TABLE public.reactions_of_the_members_of_a_workspace
			(workspace uuid, channel text, number_of_reactions int, PRIMARY KEY (workspace, channel))`,
		append(impatient(), "AFTERWRITE_MAPPINGS="+path)...)
}

const mappingRows = `[data-part="mappings"]`

func TestMappingsAreShownLive(t *testing.T) {
	t.Parallel()
	s := startMapped(t)
	b := open(t)
	b.visit(t, s.dashboard.url("/mappings"))
	b.waitForText(t, connection, "live")
	require.Regexp(t, `post-likesok\s*post:\{id:int\}:likespublic.posts.likes\s*ignore it\s*00/s\s*0\s*0\s*0`, b.waitForText(t, mappingRows, "ok"))

	s.set(t, "post:7:likes", 41)
	s.set(t, "post:1000:likes", 5)
	s.set(t, "views:7:2026-11-29", 2)
	s.set(t, "post:8:likes", -1)
	const channel = "workspace:9b2d5f1e-0000-4000-8000-00000000000a:channel:announcements:reactions"
	s.set(t, channel, 3)
	b.waitForText(t, mappingRows+" tbody tr:nth-child(3) td:last-child", "1")
	b.waitForText(t, mappingRows+" tbody tr:nth-child(1) td:last-child", "1")
	likes := regexp.MustCompile(`ignore it\s*1[\d.<]+/s\s*1\s*[2-9]\s*1`) // written, without a row, refused attempts, dead letters
	views := regexp.MustCompile(`daily-viewsok\s*views:\S*daily_views.views\s*insert it\s*1[\d.<]+/s\s*0\s*0\s*0`)
	localtest.Eventually(t, patience, func() (bool, string) { // the counts come with the next heartbeat
		text := b.text(t, mappingRows)
		return likes.MatchString(text) && views.MatchString(text), text
	})
	b.readable(t, "/mappings")

	b.visit(t, s.dashboard.url("/keys?key=post:7:likes"))
	b.waitForText(t, "main", "agrees")
	b.readable(t, "a counter that lands in a column")
	b.visit(t, s.dashboard.url("/keys?key="+channel))
	b.waitForText(t, "main", "public.reactions_of_the_members_of_a_workspace (channel = 'announcements', workspace = ")
	b.readable(t, "a counter whose row is missing")

	b.visit(t, s.dashboard.url("/mappings"))
	s.exec(t, "ALTER TABLE public.daily_views RENAME views TO seen")
	s.set(t, "views:8:2026-11-29", 1)
	text := b.waitForText(t, mappingRows, "broken")
	require.Contains(t, text, "What to do")
	b.readable(t, "/mappings with a broken one")
	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, ".state.bad .sentence", "1 mapping is broken: daily-views.")
	s.exec(t, "ALTER TABLE public.daily_views RENAME seen TO views")
	b.waitForText(t, sentence, "Keeping up")
	b.visit(t, s.dashboard.url("/keys?key=views:8:2026-11-29"))
	b.waitForText(t, "main", "agrees")
	b.requireNoProblems(t, s.dashboard)
}

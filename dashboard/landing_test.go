package dashboard_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// land writes a row of counters, and its column of the row with the ID, if there is one.
func (b *testBundle) land(t *testing.T, id, value int, name string, column any) {
	t.Helper()
	key := fmt.Sprintf("post:%d:%s", id, name)
	_, err := b.db.ExecContext(t.Context(), "INSERT INTO counters (key, value, version, updated_at) VALUES ($1, $2, 3, now())", key, value)
	require.NoError(t, err)
	_, err = b.db.ExecContext(t.Context(), "UPDATE public.posts SET "+name+" = $2 WHERE id = $1", id, column)
	require.NoError(t, err)
}

func TestACounterShowsWhereItLands(t *testing.T) {
	t.Parallel()
	b := setupMapped(t)
	b.land(t, 1, 41, "likes", 41)
	b.land(t, 2, 41, "likes", 40)
	b.land(t, 3, 41, "likes", nil)
	b.land(t, 90, 41, "likes", 0)
	b.land(t, 90, 41, "views", 0)
	b.land(t, 90, 41, "shares", 0)
	_, err := b.db.ExecContext(t.Context(), "UPDATE public.posts SET likes = 1234 WHERE id = 4")
	require.NoError(t, err)
	for key, want := range map[string][]string{
		"post:1:likes": {`pill good">agrees<`, `<dt>Column</dt><dd class="mono">likes</dd>`, `agrees</span></header>` + "\n<dl class=\"facts\">\n<dt>Value</dt><dd>41</dd>", `public.posts (id = 1)`, `<a href="/mappings">likes</a>`},
		"post:2:likes": {`pill warn">differs<`, `<dd>40</dd>`, "<code>afterwrite mappings verify likes --repair</code> does it now"},
		"post:3:likes": {`pill warn">differs<`, `<dd>NULL</dd>`},
		"post:4:likes": {
			`nothing to compare`, `<dd>1,234</dd>`, "No row in the table counters.", "starts from this value", `pill good">in its column only<`,
		},
		"post:5:likes":   {`nothing to compare`, `<dd>0</dd>`, `">unknown<`},
		"post:90:likes":  {`pill ">no row<`, `no such row`, "Flushes write the counter to the table counters only."},
		"post:90:views":  {`pill warn">no row<`, "<code>afterwrite mappings backfill views</code> does it now"},
		"post:90:shares": {`pill warn">no row<`, "Insert the row, then redrive it."},
	} {
		answer := b.get(t, "/keys?key="+key)
		require.Equal(t, http.StatusOK, answer.Code)
		for _, text := range want {
			require.Contains(t, answer.Body.String(), text, key)
		}
	}
	require.NotContains(t, b.get(t, "/keys?key=other").Body.String(), "In your table")
	require.Zero(t, b.redis.DBSize(t.Context()).Val(), "looking loads nothing into Redis")
}

func TestAColumnThatCannotBeReadIsSaidInWords(t *testing.T) {
	t.Parallel()
	b := setupMapped(t)
	b.land(t, 1, 41, "likes", 41)
	_, err := b.db.ExecContext(t.Context(), "ALTER TABLE public.posts DROP COLUMN likes")
	require.NoError(t, err)
	for _, key := range []string{"post:1:likes", "post:2:likes"} {
		page := b.get(t, "/keys?key="+key).Body.String()
		require.Contains(t, page, `pill bad">cannot be read<`, key)
		require.Contains(t, page, "column t.likes does not exist", key)
		require.Contains(t, page, "<code>afterwrite mappings check</code> says what to change.", key)
		require.NotContains(t, page, "Postgres does not answer", key)
		require.Equal(t, key == "post:1:likes", strings.Contains(page, "<dt>Value</dt><dd>41</dd>"), key)
	}
	require.NoError(t, b.store.Close())
	page := b.get(t, "/keys?key=post:1:likes").Body.String()
	require.Contains(t, page, "Postgres does not answer")
	require.NotContains(t, page, "In your table")
}

func TestDeadLettersAreCountedByTheMappingOfTheirKeys(t *testing.T) {
	t.Parallel()
	b := setupMapped(t)
	b.run(t)
	for i := range 3 {
		key := fmt.Sprintf("post:%d:shares", i)
		require.NoError(t, b.redis.HSet(t.Context(), fmt.Sprintf("{aw:%02d}:dead", b.cache.Shard("x")), key, `{"reason":"no"}`).Err())
	}
	b.bury(t, "post:1:likes", 5, "mapping likes: no")
	b.bury(t, "other", 5, "no")
	b.eventually(t, "/mappings", func(page string) bool {
		return strings.Contains(page, `q=mapping+shares:">3</a>`) && strings.Contains(page, `q=mapping+likes:">1</a>`)
	})
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Two thirds of the keys have a column of their own, in one of two tables. Some columns have a value before the run, and their counters
// have to continue from it.

const mappings = `
mappings:
  - {name: likes, key: "post:{id:int}:likes", table: public.posts, where: {id: "{id}"}, set: likes, missing: ignore}
  - name: views
    key: "views:{post:int}:{day:date}"
    table: public.daily_views
    where: {post_id: "{post}", day: "{day}"}
    set: views
    missing: insert
`

const (
	createPosts = `CREATE TABLE public.posts (id bigint PRIMARY KEY, likes bigint NOT NULL DEFAULT 0)`
	createViews = `CREATE TABLE public.daily_views (post_id bigint, day date, views bigint NOT NULL DEFAULT 0, PRIMARY KEY (post_id, day))`
	insertPost  = `INSERT INTO public.posts (id, likes) VALUES ($1, $2)`
	insertViews = `INSERT INTO public.daily_views (post_id, day, views) VALUES ($1, $2, $3)`

	// rowsSQL reads all rows and columns in one statement, so in one snapshot.
	rowsSQL = `
SELECT coalesce(c.key, m.key), c.key IS NOT NULL, coalesce(c.value, 0), coalesce(c.version, 0), c.deleted_at IS NOT NULL,
	m.key IS NOT NULL, coalesce(m.value, 0)
FROM counters c FULL JOIN (
	SELECT 'post:' || id || ':likes' AS key, likes AS value FROM public.posts
	UNION ALL SELECT 'views:' || post_id || ':' || to_char(day, 'YYYY-MM-DD'), views FROM public.daily_views
) m ON m.key = c.key`
)

// landing says where a key lands.
type landing uint8

const (
	nowhere  landing = iota // only in the table counters
	inPosts                 // its row exists
	inViews                 // its row exists if it starts from a value; otherwise the first flush inserts it
	landings                // their number
)

// name is a key, with the column that it lands in.
type name struct {
	key   string
	lands landing
	id    int
	day   time.Time // only inViews
	start int64     // the value of the column before the run
}

// newName returns the name of key i. Its start depends on i, too.
func newName(i int, unmapped string) name {
	n := name{key: unmapped, lands: landing(i % int(landings)), id: i} //nolint:gosec // below landings
	if i/int(landings)%2 == 1 {
		n.start = int64(1000 + i)
	}
	switch n.lands {
	case inPosts:
		n.key = fmt.Sprintf("post:%d:likes", i)
	case inViews:
		n.day = time.Date(2026, time.January, 1+i%365, 0, 0, 0, 0, time.UTC)
		n.key = fmt.Sprintf("views:%d:%s", i, n.day.Format(time.DateOnly))
	default:
		n.start = 0
	}
	return n
}

// createTables creates the mapped tables, with the rows of names, and the file of mappings. It returns the path of the file.
func (r *rig) createTables(ctx context.Context, names []name) (path string, err error) {
	tx, err := r.DB.BeginTx(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("create the mapped tables: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	for _, statement := range []string{createPosts, createViews} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return "", fmt.Errorf("create the mapped tables: %w", err)
		}
	}
	for _, n := range names {
		switch {
		case n.lands == inPosts:
			_, err = tx.ExecContext(ctx, insertPost, n.id, n.start)
		case n.lands == inViews && n.start != 0:
			_, err = tx.ExecContext(ctx, insertViews, n.id, n.day, n.start)
		}
		if err != nil {
			return "", fmt.Errorf("insert the row of %s: %w", n.key, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return "", fmt.Errorf("create the mapped tables: %w", err)
	}
	path = filepath.Join(r.world.Dir, "mappings.yaml")
	if err := os.WriteFile(path, []byte(mappings), 0o600); err != nil {
		return "", fmt.Errorf("write the mappings: %w", err)
	}
	return path, nil
}

// disagrees returns how the column of n differs from the row of its counter in the same snapshot, or "".
func (n name) disagrees(s *state) string {
	column, hasColumn := s.columns[n.key]
	has, found := s.rows[n.key]
	want := n.start
	if found {
		want = has.value // 0 in a tombstone
	}
	inserted := n.lands == inPosts || n.start != 0 || (found && !has.deleted)
	switch {
	case n.lands == nowhere:
	case inserted && !hasColumn:
		return fmt.Sprintf("the mapped table has no row, but counters has value %d, version %d", has.value, has.version)
	case hasColumn && column != want:
		return fmt.Sprintf("the column has %d, but counters has value %d, version %d, and it started from %d",
			column, has.value, has.version, n.start)
	}
	return ""
}

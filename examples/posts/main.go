// Posts is a small service with its own tables in Postgres: posts have likes, and views for each day. It counts with plain UPDATE and
// INSERT ... ON CONFLICT while its switch is off, and through afterwrite while it is on. Flip the switch without losing a count or
// failing a request: docs/tutorial-mappings.md says how.
//
//	psql "$DATABASE_URL" -f examples/posts/schema.sql
//	DATABASE_URL=... AFTERWRITE_URL=http://127.0.0.1:8080 go run ./examples/posts
//	curl -X POST http://127.0.0.1:8092/posts/1/like     # {"likes":11}
//	curl http://127.0.0.1:8092/posts/1                  # {"id":1,"title":"Post 1","likes":11,"day":"2026-11-29","views":1}
//	curl http://127.0.0.1:8092/posts                    # [{"id":1,"title":"Post 1","likes":11},...]
package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	_ "github.com/lib/pq"

	"github.com/afterwrite/afterwrite/client"
)

func main() {
	slog.Error("posts", "error", run())
	os.Exit(1)
}

func run() error {
	counters, err := client.New(cmp.Or(os.Getenv("AFTERWRITE_URL"), "http://127.0.0.1:8080"),
		client.Options{APIKey: os.Getenv("AFTERWRITE_API_KEY")})
	if err != nil {
		return err
	}
	db, err := sql.Open("postgres", os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr: cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8092"), Handler: service(db, counters), ReadHeaderTimeout: 5 * time.Second,
	}
	return server.ListenAndServe()
}

// maxConnections bounds the connections to Postgres. Further requests wait for one.
const maxConnections = 20

// patience bounds a write. It is longer than a switch may take, because writes wait meanwhile.
const patience = 15 * time.Second

// posts serves the posts in db.
type posts struct {
	db       *sql.DB
	counters *client.Client
}

func service(db *sql.DB, counters *client.Client) http.Handler {
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections)
	p := posts{db, counters}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /posts/{id}/like", p.like)
	mux.HandleFunc("GET /posts/{id}", p.view)
	mux.HandleFunc("GET /posts", p.list)
	return mux
}

// post is a row. While the switch is on, its likes are a second behind.
type post struct {
	ID    int64  `json:"id"`
	Title string `json:"title"`
	Likes int64  `json:"likes"`
}

var errNoPost = errors.New("there is no such post")

func (p posts) like(w http.ResponseWriter, r *http.Request) {
	_, likes, err := p.count(r, write{
		key:       func(id int64) string { return fmt.Sprintf("post:%d:likes", id) },
		statement: `UPDATE posts SET likes = likes + 1 WHERE id = $1 RETURNING likes`,
	})
	if err != nil {
		fail(w, r, err)
		return
	}
	answer(w, map[string]int64{"likes": likes})
}

// view counts a view of today (UTC), and answers with the post.
func (p posts) view(w http.ResponseWriter, r *http.Request) {
	day := time.Now().UTC().Format(time.DateOnly)
	found, views, err := p.count(r, write{
		key: func(id int64) string { return fmt.Sprintf("views:%d:%s", id, day) },
		statement: `INSERT INTO daily_views (post_id, day, views) VALUES ($1, $2, 1)
			ON CONFLICT (post_id, day) DO UPDATE SET views = daily_views.views + 1 RETURNING views`,
		arguments: []any{day},
	})
	if err != nil {
		fail(w, r, err)
		return
	}
	answer(w, struct {
		post

		Day   string `json:"day"`
		Views int64  `json:"views"`
	}{found, day, views})
}

// write is one count, in both ways.
type write struct {
	key       func(id int64) string // of the counter
	statement string                // $1 is the post's id
	arguments []any                 // from $2
}

// lockSwitch locks and reads the switch, and reads a post. FOR SHARE lets other writers pass. Whoever flips the switch waits until they
// have ended.
const lockSwitch = `SELECT s.enabled, p.id, p.title, p.likes FROM switches s LEFT JOIN posts p ON p.id = $1
	WHERE s.name = 'afterwrite' FOR SHARE OF s`

// count carries out a write, and returns the post and the new count. It holds the switch until the write has ended. So it does not end
// early when the user has gone: afterwrite may have the write already.
func (p posts) count(r *http.Request, count write) (post, int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return post{}, 0, errNoPost
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patience)
	defer cancel()
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return post{}, 0, err
	}
	defer func() { _ = tx.Rollback() }() // unlocks the switch

	var enabled bool
	var found struct {
		id, likes sql.NullInt64
		title     sql.NullString
	}
	if err := tx.QueryRowContext(ctx, lockSwitch, id).Scan(&enabled, &found.id, &found.title, &found.likes); err != nil {
		return post{}, 0, err
	}
	if !found.id.Valid {
		return post{}, 0, errNoPost
	}
	result := post{ID: id, Title: found.title.String, Likes: found.likes.Int64}
	if enabled {
		counter, err := p.counters.Increment(ctx, count.key(id), 1) // it is repeated with the same Idempotency-Key, if necessary
		return result, counter.Value, err
	}
	var n int64
	if err := tx.QueryRowContext(ctx, count.statement, append([]any{id}, count.arguments...)...).Scan(&n); err != nil {
		return post{}, 0, err
	}
	return result, n, tx.Commit()
}

// list answers with the first posts. It reads only the table, whatever the switch says.
func (p posts) list(w http.ResponseWriter, r *http.Request) {
	rows, err := p.db.QueryContext(r.Context(), `SELECT id, title, likes FROM posts ORDER BY id LIMIT 100`)
	if err != nil {
		fail(w, r, err)
		return
	}
	defer rows.Close()
	list := []post{}
	for rows.Next() {
		var next post
		if err := rows.Scan(&next.ID, &next.Title, &next.Likes); err != nil {
			fail(w, r, err)
			return
		}
		list = append(list, next)
	}
	if err := rows.Err(); err != nil {
		fail(w, r, err)
		return
	}
	answer(w, list)
}

func fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errNoPost) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	slog.WarnContext(r.Context(), "posts", "error", err)
	http.Error(w, "it may not have been counted: try again later", http.StatusServiceUnavailable)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Warn("posts", "error", err) // the user has gone
	}
}

// Command fixture made layout2.json: a Redis and its Postgres as the last version of layout 2 (commit 8517fb4) leaves them, and
// what that version answered. It runs that version's own processes and kills its servers. To make the file again, copy this one
// to internal/fixture/main.go of that commit, and there
//
//	go build -o /tmp/afterwrite-old . && go run ./internal/fixture /tmp/afterwrite-old > layout2.json
package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"sort"
	"strings"
	"syscall"
	"time"

	_ "github.com/lib/pq"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	shards  = 64
	apiAddr = "127.0.0.1:18080"
)

type world struct {
	ctx       context.Context
	program   string
	server    *local.Redis
	postgres  *local.Postgres
	redis     redis.UniversalClient
	db        *sql.DB
	cache     *cache.Cache
	processes map[string]*exec.Cmd
	replays   []replay
}

type (
	state struct {
		Key     string `json:"key"`
		Value   int64  `json:"value"`
		Version int64  `json:"version"`
		Deleted bool   `json:"deleted,omitempty"`
		Lineage int64  `json:"lineage"`
		Base    int64  `json:"base"`
	}
	answer struct {
		Status  int    `json:"status"`
		Value   *int64 `json:"value,omitempty"`
		Version *int64 `json:"version,omitempty"`
		Synced  *bool  `json:"synced,omitempty"`
	}
	replay struct {
		Key    string `json:"key"`
		Op     string `json:"op"`
		Amount int64  `json:"amount,omitempty"`
		ID     string `json:"id"`
		Answer answer `json:"answer"` // of its repetition
	}
	entry struct {
		Key   string `json:"key"`
		Type  string `json:"type"`
		TTL   int64  `json:"ttl_ms,omitempty"`
		Value any    `json:"value"` // of a dirty set: {member: ms from now, or "dead"}
	}
	dump struct {
		MadeBy  string            `json:"made_by"`
		Redis   []entry           `json:"redis"`
		Rows    []state           `json:"rows"`
		Answers map[string]answer `json:"answers"` // of GET, once Postgres was back
		Replays []replay          `json:"replays"`
		After   []state           `json:"rows_after"` // once that version had flushed
	}
)

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	w := &world{ctx: context.Background(), program: os.Args[1], processes: make(map[string]*exec.Cmd)}
	dir := must(os.MkdirTemp("", "fixture"))
	check(os.Chmod(dir, 0o711))
	w.server = must(local.StartRedis(w.ctx, local.RedisOptions{Dir: dir + "/redis", AppendOnly: true, AppendFsync: "always"}))
	defer w.server.Kill()
	w.postgres = must(local.StartPostgres(w.ctx, local.PostgresOptions{Dir: dir + "/postgres"}))
	defer w.postgres.Kill()
	w.redis = must(cache.Connect(w.server.URL(), 4))
	w.db = must(sql.Open("postgres", w.postgres.URL()))
	w.cache = cache.New(w.redis, cache.Options{Shards: shards, CleanTTL: time.Hour})
	defer func() {
		for name := range w.processes {
			w.stop(name)
		}
	}()

	must(w.command("migrate").CombinedOutput())
	w.sql(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.key LIKE 'refused%' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$`)
	w.sql(`CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION refuse()`)
	w.start("api")
	w.start("scheduler")
	w.clean()
	w.aside()
	w.dirty()
	w.byHand()
	w.restarts()
	d := dump{MadeBy: "commit 8517fb4, testdata/layout2.go", Rows: w.rows()}
	w.blind()
	d.Redis = w.dump()

	check(w.postgres.Start(w.ctx))
	time.Sleep(3 * time.Second) // the api's breaker
	d.Replays, d.Answers = w.replays, w.answers()
	w.replayAll()
	w.start("worker", "AFTERWRITE_RETRY_BACKOFF=10m")
	w.settled()
	d.After = w.rows()
	out := must(json.Marshal(d))
	text := strings.NewReplacer(`},{`, "},\n{", `:[{`, ":[\n{").Replace(string(out))
	fmt.Println(text)
}

// clean makes counters that Postgres has.
func (w *world) clean() {
	w.start("worker", "AFTERWRITE_MAX_ATTEMPTS=1")
	for i := range 24 {
		key := fmt.Sprintf("page:%d", i)
		w.increment(key, int64(i*i))
		w.increment(key, -int64(i))
	}
	for _, key := range odd {
		w.set(key, 1)
		w.increment(key, 41)
	}
	for _, key := range []string{"gone:1", "gone:2", "gone:3", "gone:4"} {
		w.set(key, 5)
		w.delete(key)
	}
	w.set("big", 9223372036854775807)
	w.set("small", -9223372036854775808)
	for i := range 8 {
		w.set(fmt.Sprintf("cold:%d", i), int64(100+i))
	}
	w.once("page:1", "increment", 7, "id-1")
	w.once("page:2", "set", 77, "id 2 {with} | odd: bytes")
	w.once("page:3", "delete", 0, "id-3")
	w.once("gone:1", "delete", 0, "id-of-a-delete-of-nothing")
	w.settled()
}

var odd = []string{"a b", "{braces}", "}:c:{aw:01}", "häuser/łódź/東京", "100%", "a:b|c,d;e", "'\"\\", " lead", "🙂"}

// aside makes counters that Postgres refuses: dead letters, and those that wait for a retry.
func (w *world) aside() {
	for _, key := range []string{"refused:dead:1", "refused:dead:2", "refused:dead:gone", "refused:dead:alien"} {
		w.set(key, 3)
		w.await(func() bool {
			_, dead, err := w.cache.DeadLetter(w.ctx, counter.Key(key))
			check(err)
			return dead
		})
	}
	w.stop("worker")
	w.start("worker", "AFTERWRITE_RETRY_BACKOFF=10m")
	w.set("refused:parked:1", 8)
	w.set("refused:parked:2", 9)
	w.set("refused:parked:gone", 9)
	w.await(func() bool { _, parked := w.backlog(); return parked == 3 })
	w.settled()
	w.increment("refused:dead:1", 10)
	w.increment("refused:parked:1", 10)
	w.delete("refused:parked:2")
	w.stop("worker")
	w.stop("scheduler")
}

// dirty makes counters that Postgres does not have yet. No worker runs from here on.
func (w *world) dirty() {
	for i := range 8 {
		w.increment(fmt.Sprintf("page:%d", i), 1000)
	}
	for _, key := range odd[:5] {
		w.increment(key, 1000)
	}
	w.set("page:8", 5)
	w.increment("page:8", 1)
	w.increment("page:9", 1)
	w.set("page:9", -3)
	w.delete("page:10")
	w.delete("page:11")
	w.increment("page:11", 4)
	w.increment("gone:2", 6)
	w.increment("big", -1)
	w.increment("new:1", 1)
	w.set("new:2", 2)
	w.increment("new:3", 3)
	w.delete("new:3")
	w.once("page:4", "increment", 5, "id-4")
	w.once("page:10", "delete", 0, "id-10")
	// What was committed while it was written on.
	w.increment("page:12", 1)
	db := must(store.Open(w.postgres.URL(), store.Options{MaxConns: 1}))
	defer db.Close()
	shard := w.cache.Shard("page:12")
	peeked := must(w.cache.Peek(w.ctx, shard, []counter.Key{"page:12"}, false))
	must(db.Upsert(w.ctx, []counter.Row{peeked.Entries[0].Row}))
	w.increment("page:12", 2)
	must(w.cache.Ack(w.ctx, shard, peeked.At, []cache.Committed{peeked.Entries[0].Committed()}))
	// What was committed by a flush that died before it could say so.
	w.increment("page:13", 1)
	peeked = must(w.cache.Peek(w.ctx, w.cache.Shard("page:13"), []counter.Key{"page:13"}, false))
	must(db.Upsert(w.ctx, []counter.Row{peeked.Entries[0].Row}))
	w.increment("page:13", 2)
}

// byHand does what people do.
func (w *world) byHand() {
	w.increment("hand:missing", 1)
	w.do("DEL", w.name("hand:missing"))
	w.increment("hand:garbage", 1)
	w.do("SET", w.name("hand:garbage"), "not a counter")
	w.increment("hand:alien", 1)
	w.do("DEL", w.name("hand:alien"))
	w.do("RPUSH", w.name("hand:alien"), "a", "b")
	w.do("SET", w.name("hand:clean-garbage"), "5 x")
	w.do("HSET", w.name("hand:clean-alien"), "f", "v")
	w.do("DEL", w.name("refused:dead:gone"), w.name("refused:parked:gone"))
	w.do("DEL", w.name("refused:dead:alien"))
	w.do("RPUSH", w.name("refused:dead:alien"), "a")
	// As `afterwrite verify --repair` marks a counter whose row is older than its entry.
	w.sql(`UPDATE counters SET value = 0, version = version - 1 WHERE key = 'page:14'`)
	w.do("ZADD", w.tag("page:14")+":dirty", time.Now().UnixMilli(), "page:14")
	w.do("PERSIST", w.name("page:14"))
	// Its mark was removed.
	w.increment("page:15", 15)
	w.do("ZREM", w.tag("page:15")+":dirty", "page:15")
}

// restarts ends lives of entries.
func (w *world) restarts() {
	w.restart()
	w.increment("page:0", 1)
	w.increment("page:4", 1)
	w.set("page:5", 55)
	w.increment("page:10", 1)
	w.increment("refused:dead:1", 1)
	w.increment("refused:parked:1", 1)
	w.increment("page:13", 4)
	w.restart()
	w.increment("page:0", 2)
	w.increment("page:5", 2)
	w.increment("page:6", 2)
	w.delete("page:7")
}

// blind writes while Postgres is away.
func (w *world) blind() {
	for i := range 8 {
		w.do("DEL", w.name(fmt.Sprintf("cold:%d", i))) // as if it had expired
	}
	w.postgres.Kill()
	w.increment("cold:0", 1)
	w.increment("cold:1", 1)
	w.set("cold:2", 7)
	w.increment("cold:3", 1)
	w.set("cold:3", 8)
	w.increment("cold:3", 1)
	w.delete("cold:4")
	w.increment("cold:5", 1)
	w.increment("blind:new", 1)
	w.once("cold:6", "increment", 6, "id-blind")
	w.restart()
	w.increment("cold:1", 10)
	w.increment("cold:2", 10)
	w.set("cold:5", 9)
	w.increment("cold:7", 7)
}

func (w *world) restart() {
	w.server.Kill()
	check(w.server.Start(w.ctx))
	w.await(func() bool { return w.redis.Ping(w.ctx).Err() == nil && w.get("page:20").Status == 200 })
}

func (w *world) tag(key string) string  { return "{aw:" + counter.Key(key).Shard(shards).String() + "}" }
func (w *world) name(key string) string { return w.tag(key) + ":c:" + key }
func (w *world) do(args ...any)         { check(w.redis.Do(w.ctx, args...).Err()) }
func (w *world) sql(text string)        { must(w.db.Exec(text)) }

func (w *world) increment(key string, by int64) { w.write("", key, "increment", by) }
func (w *world) set(key string, to int64)       { w.write("", key, "set", to) }
func (w *world) delete(key string)              { w.write("", key, "delete", 0) }

func (w *world) once(key, op string, amount int64, id string) {
	w.write(id, key, op, amount)
	w.replays = append(w.replays, replay{Key: key, Op: op, Amount: amount, ID: id})
}

func (w *world) replayAll() {
	for i := range w.replays {
		r := &w.replays[i]
		var replayed bool
		r.Answer, replayed = w.write(r.ID, r.Key, r.Op, r.Amount)
		if !replayed {
			panic(r)
		}
	}
}

func (w *world) write(id, key, op string, amount int64) (answer, bool) {
	path, method, body := "", "POST", ""
	switch op {
	case "increment":
		path, body = "/increment", fmt.Sprintf(`{"by":%d}`, amount)
	case "set":
		method, body = "PUT", fmt.Sprintf(`{"value":%d}`, amount)
	case "delete":
		method = "DELETE"
	}
	header := http.Header{}
	if body != "" {
		header.Set("Content-Type", "application/json")
	}
	if id != "" {
		header.Set("Idempotency-Key", id)
	}
	a, got := w.request(method, key, path, body, header)
	if a.Status >= 300 && a.Status != 404 {
		panic(fmt.Sprint(method, key, path, body, a))
	}
	return a, got.Get("Idempotent-Replayed") == "true"
}

func (w *world) get(key string) answer {
	a, _ := w.request("GET", key, "", "", nil)
	return a
}

func (w *world) request(method, key, path, body string, header http.Header) (answer, http.Header) {
	u := "http://" + apiAddr + "/v1/counters/" + url.PathEscape(key) + path
	r := must(http.NewRequest(method, u, strings.NewReader(body)))
	if header != nil {
		r.Header = header
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{}, nil
	}
	defer response.Body.Close()
	text := must(io.ReadAll(response.Body))
	var a answer
	if len(text) > 0 {
		_ = json.Unmarshal(text, &a)
	}
	a.Status = response.StatusCode
	if a.Status >= 400 && a.Status != 404 {
		fmt.Fprintln(os.Stderr, method, key, path, body, string(bytes.TrimSpace(text)))
	}
	return a, response.Header
}

func (w *world) answers() map[string]answer {
	answers := make(map[string]answer)
	check(w.cache.EachEntry(w.ctx, func(keys []counter.Key, _ []string) error {
		for _, key := range keys {
			answers[string(key)] = w.get(string(key))
		}
		return nil
	}))
	return answers
}

// backlog counts the dirty keys that are due, and those that wait for a retry.
func (w *world) backlog() (due, parked int64) {
	now := fmt.Sprint(time.Now().UnixMilli())
	for i := range shards {
		name := "{aw:" + counter.Shard(i).String() + "}:dirty"
		due += must(w.redis.ZCount(w.ctx, name, "-inf", now).Result())
		parked += must(w.redis.ZCount(w.ctx, name, "("+now, "(4503599627370496").Result())
	}
	return due, parked
}

func (w *world) settled() {
	w.await(func() bool { due, _ := w.backlog(); return due == 0 })
}

func (w *world) await(done func() bool) {
	for began := time.Now(); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			panic("not in time")
		}
	}
}

func (w *world) rows() []state {
	found := must(w.db.Query(`SELECT key, value, version, deleted_at IS NOT NULL, lineage, base FROM counters ORDER BY key`))
	defer found.Close()
	var rows []state
	for found.Next() {
		var s state
		check(found.Scan(&s.Key, &s.Value, &s.Version, &s.Deleted, &s.Lineage, &s.Base))
		rows = append(rows, s)
	}
	return rows
}

func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(w.program, args...)
	cmd.Env = append(os.Environ(), "REDIS_URL="+w.server.URL(), "DATABASE_URL="+w.postgres.URL(), "AFTERWRITE_API_ADDR="+apiAddr,
		"AFTERWRITE_WORKER_ADDR=127.0.0.1:18082", "AFTERWRITE_SCHEDULER_ADDR=127.0.0.1:18083")
	return cmd
}

func (w *world) start(name string, env ...string) {
	cmd := w.command(name)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	check(cmd.Start())
	w.processes[name] = cmd
	if name == "api" {
		w.await(func() bool { return w.get("none").Status == 404 })
	}
}

func (w *world) stop(name string) {
	check(w.processes[name].Process.Signal(syscall.SIGTERM))
	_ = w.processes[name].Wait()
	delete(w.processes, name)
}

func (w *world) dump() []entry {
	now := must(w.redis.Time(w.ctx).Result()).UnixMilli()
	var entries []entry
	iterator := w.redis.Scan(w.ctx, 0, "*aw:*", 1000).Iterator()
	for iterator.Next(w.ctx) {
		name := iterator.Val()
		if strings.HasPrefix(name, "asynq") || name == "aw:pulse" || name == "aw:history" {
			continue
		}
		e := entry{Key: name, Type: w.redis.Type(w.ctx, name).Val()}
		if ttl := w.redis.PTTL(w.ctx, name).Val(); ttl > 0 {
			e.TTL = ttl.Milliseconds()
		}
		switch e.Type {
		case "string":
			e.Value = w.redis.Get(w.ctx, name).Val()
		case "hash":
			e.Value = w.redis.HGetAll(w.ctx, name).Val()
		case "list":
			e.Value = w.redis.LRange(w.ctx, name, 0, -1).Val()
		case "zset":
			scores := make(map[string]any)
			for _, z := range w.redis.ZRangeWithScores(w.ctx, name, 0, -1).Val() {
				scores[z.Member.(string)] = z.Score - float64(now)
				if z.Score == 1<<52 {
					scores[z.Member.(string)] = "dead"
				}
			}
			e.Value = scores
		}
		entries = append(entries, e)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Key < entries[j].Key })
	return entries
}

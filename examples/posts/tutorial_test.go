package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

const (
	root     = "../.."
	document = root + "/docs/tutorial-mappings.md"

	// commandPatience bounds each block of the tutorial, and each wait for a process.
	commandPatience = 60 * time.Second
)

// block is a fenced block of commands, maybe one that stays running, and what it prints.
var block = regexp.MustCompile("(?s)\n```sh( background)?\n(.*?)\n```\n(?:\nIt prints:\n\n```text\n(.*?)\n```\n)?")

// TestTutorialIsExactUnderLoad runs the commands of docs/tutorial-mappings.md in their order. From the end of its first step, clients
// like and view posts all the time.
func TestTutorialIsExactUnderLoad(t *testing.T) {
	t.Parallel()
	tut := newTutorial(t)
	var l *load
	var old columns // what counters had when the switch went off

	tut.run(t, "1. Start the application")
	l = tut.startLoad(t)
	tut.run(t, "2. Start afterwrite")
	tut.run(t, "3. Flip the switch")
	l.progress(t)
	tut.run(t, "4. Import and verify")
	l.progress(t)
	l.quiet(t, func() { tut.checkCounters(t, l) })

	tut.run(t, "Go back")
	l.quiet(t, func() {
		tut.checkColumns(t, l)
		old = tut.counters(t)
	})
	l.progress(t)
	l.quiet(t, func() {
		tut.checkColumns(t, l)
		require.Equal(t, old, tut.counters(t), "nobody writes the counters")
		require.NotEqual(t, old, tut.columns(t))
	})

	tut.run(t, "Go forward again")
	l.progress(t)
	l.quiet(t, func() { tut.checkCounters(t, l) })

	tut.run(t, "Other writers of the column")
	l.progress(t)
	l.quiet(t, func() {
		tut.checkCounters(t, l) // the trigger lets afterwrite pass
		tut.checkTrigger(t)
	})
	l.stop(t)
	t.Logf("%d requests, the slowest took %s", l.requests, l.slowest)
}

// TestSwitchStaysIfItCannotBeExact runs the transactions of the tutorial without the processes of afterwrite.
func TestSwitchStaysIfItCannotBeExact(t *testing.T) {
	t.Parallel()
	tut := newTutorial(t)
	tut.shell(t, `psql "$DATABASE_URL" -q -f examples/posts/schema.sql && afterwrite migrate`)
	tut.shell(t, `psql "$DATABASE_URL" -c "INSERT INTO afterwrite.counters VALUES ('post:1:likes', 5, 1, NULL, now())"`)
	for heading, enabled := range map[string]bool{"Go back": true, "Go forward again": false} {
		_, err := tut.db.ExecContext(t.Context(), `UPDATE switches SET enabled = $1`, enabled)
		require.NoError(t, err)
		first, transaction, found := strings.Cut(block.FindStringSubmatch(tut.sections[heading])[2], "\npsql")
		require.True(t, found)
		require.Contains(t, first, "flush")
		transaction, _, _ = strings.Cut(transaction, "\nSQL")

		printed := tut.shell(t, "export REDIS_URL=redis://127.0.0.1:1\npsql"+transaction+"\nSQL\n")

		require.Contains(t, printed, "not switched", heading)
		var is bool
		require.NoError(t, tut.db.QueryRowContext(t.Context(), `SELECT enabled FROM switches`).Scan(&is))
		require.Equal(t, enabled, is, heading)
	}
}

// tutorial runs the document's commands.
type tutorial struct {
	sections map[string]string // by their headings
	app, api string            // addresses
	env      []string
	before   string // the lines that every terminal begins with
	db       *sql.DB

	start columns // before the load
	load  *load
}

// columns are values by the key of their counter.
type columns map[string]int64

func newTutorial(t *testing.T) *tutorial {
	t.Helper()
	text, err := os.ReadFile(document)
	require.NoError(t, err)
	url := localtest.PostgresURL(t, nil)
	tut := &tutorial{app: freeAddress(t), api: freeAddress(t), sections: make(map[string]string)}
	tut.db, err = sql.Open("postgres", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tut.db.Close()) })
	tut.env = append(os.Environ(), programVariable+"=1", "AFTERWRITE_API_ADDR="+tut.api, "AFTERWRITE_WORKER_ADDR=127.0.0.1:0",
		"AFTERWRITE_SCHEDULER_ADDR=127.0.0.1:0", "AFTERWRITE_DASHBOARD_ADDR=127.0.0.1:0")

	replaced := string(text)
	for from, to := range map[string]string{
		`\bDATABASE_URL='[^']*'`: "DATABASE_URL='" + url + "'", `\bREDIS_URL=\S+`: "REDIS_URL='" + localtest.RedisURL(t) + "'",
		`\$PWD/bin:`: programs(t) + ":", `127\.0\.0\.1:8080`: tut.api, `127\.0\.0\.1:8092`: tut.app,
	} {
		pattern := regexp.MustCompile(from)
		require.Regexp(t, pattern, replaced)
		replaced = pattern.ReplaceAllLiteralString(replaced, to)
	}
	introduction, rest, found := strings.Cut(replaced, "\n## ")
	require.True(t, found)
	tut.before = block.FindStringSubmatch(introduction)[2] + "\n"
	for section := range strings.SplitSeq(rest, "\n## ") {
		heading, commands, _ := strings.Cut(section, "\n")
		tut.sections[heading] = commands
	}
	return tut
}

// programs returns a folder with the program afterwrite, which is this test binary.
func programs(t *testing.T) string {
	t.Helper()
	binary, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(binary, filepath.Join(dir, "afterwrite")))
	return dir
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := local.FreePort()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// run runs the blocks of a section.
func (tut *tutorial) run(t *testing.T, heading string) {
	t.Helper()
	require.Contains(t, tut.sections, heading)
	blocks := block.FindAllStringSubmatch(tut.sections[heading], -1)
	require.Len(t, blocks, strings.Count(tut.sections[heading], "\n```sh"), "each block of commands is run")
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		if b[1] != "" {
			tut.background(t, b[2])
			continue
		}
		printed := tut.shell(t, b[2])
		if b[3] != "" {
			require.Equal(t, anyNumber(b[3]), anyNumber(printed), b[2])
		}
		if tut.load != nil {
			tut.load.mu.Lock()
			tut.load.likes["post:1:likes"] += int64(strings.Count(b[2], "/posts/1/like"))
			tut.load.mu.Unlock()
		}
	}
}

var number = regexp.MustCompile(`\d+`)

// anyNumber makes all numbers equal: under load they differ.
func anyNumber(text string) string {
	return number.ReplaceAllString(strings.TrimSpace(text), "0")
}

// shell runs commands to their end, and returns what they print. They must succeed.
func (tut *tutorial) shell(t *testing.T, commands string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandPatience)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", tut.before+commands)
	shell.Dir, shell.Env = root, tut.env
	var problems bytes.Buffer
	shell.Stderr = &problems
	printed, err := shell.Output()
	require.NoError(t, err, "%s\n%s%s", commands, printed, &problems)
	return string(printed)
}

// background starts a command that runs until the end of the test, and waits until it serves.
func (tut *tutorial) background(t *testing.T, command string) {
	t.Helper()
	url := "http://" + tut.api + "/readyz"
	if strings.Contains(command, "ADDR="+tut.app) {
		url = "http://" + tut.app + "/posts"
	}
	// The shell outlives the signal, which ends the first wait, and ends after its command.
	process, err := local.Program{
		Path: "/bin/bash", Args: []string{"-c", tut.before + "trap : TERM\n" + command + " & wait; wait $!"}, Dir: root, Env: tut.env,
	}.Start()
	require.NoError(t, err)
	t.Cleanup(func() {
		defer process.Kill()
		if t.Failed() {
			t.Logf("%s\n%s", command, process.LastLog())
		}
		require.NoError(t, syscall.Kill(-process.Pid(), syscall.SIGTERM))
		select {
		case <-process.Done():
		case <-time.After(commandPatience):
			t.Errorf("%s does not end", command)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), commandPatience)
	defer cancel()
	require.NoError(t, process.Await(ctx, local.Answers(url)))
}

// startLoad starts the load. What the columns have is its start.
func (tut *tutorial) startLoad(t *testing.T) *load {
	t.Helper()
	tut.start = tut.columns(t)
	require.Len(t, tut.start, numPosts)
	tut.load = startLoad(t, "http://"+tut.app)
	return tut.load
}

// checkColumns requires that the columns have exactly what was acknowledged.
func (tut *tutorial) checkColumns(t *testing.T, l *load) {
	t.Helper()
	want := maps.Clone(tut.start)
	for _, counted := range []counts{l.likes, l.views} {
		for key, n := range counted {
			want[key] += n
		}
	}
	require.Equal(t, want, tut.columns(t))
}

// checkCounters flushes, and requires that columns and counters have exactly what was acknowledged.
func (tut *tutorial) checkCounters(t *testing.T, l *load) {
	t.Helper()
	tut.shell(t, "afterwrite flush --wait")
	tut.checkColumns(t, l)
	require.Equal(t, tut.columns(t), tut.counters(t))
}

func (tut *tutorial) columns(t *testing.T) columns {
	t.Helper()
	return tut.query(t, `SELECT format('post:%s:likes', id), likes FROM posts
		UNION ALL SELECT format('views:%s:%s', post_id, day), views FROM daily_views`)
}

func (tut *tutorial) counters(t *testing.T) columns {
	t.Helper()
	return tut.query(t, `SELECT key, value FROM afterwrite.counters WHERE deleted_at IS NULL`)
}

func (tut *tutorial) query(t *testing.T, query string) columns {
	t.Helper()
	rows, err := tut.db.QueryContext(t.Context(), query)
	require.NoError(t, err)
	defer rows.Close()
	found := columns{}
	for rows.Next() {
		var key string
		var value int64
		require.NoError(t, rows.Scan(&key, &value))
		found[key] = value
	}
	require.NoError(t, rows.Err())
	return found
}

// checkTrigger requires that the trigger refuses another role, unless the value stays the same.
func (tut *tutorial) checkTrigger(t *testing.T) {
	t.Helper()
	connection, err := tut.db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, connection.Close()) }()
	exec := func(statement string) error {
		_, err := connection.ExecContext(t.Context(), statement)
		return err
	}
	for _, statement := range []string{
		`CREATE ROLE posts_app`, `GRANT USAGE ON SCHEMA public TO posts_app`, `GRANT SELECT, UPDATE ON posts TO posts_app`,
		`SET ROLE posts_app`, `UPDATE posts SET likes = likes, title = 'New'`,
	} {
		require.NoError(t, exec(statement), statement)
	}
	require.ErrorContains(t, exec(`UPDATE posts SET likes = 0 WHERE id = 7`), "write the counter post:7:likes through the API")
	require.NoError(t, exec(`RESET ROLE`))
}

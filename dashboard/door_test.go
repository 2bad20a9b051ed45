package dashboard_test

import (
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

// write makes TestEveryDoor write its table into docs/security.md instead of comparing it: go test ./dashboard -run Door -write.
var write = flag.Bool("write", false, "write the table of docs/security.md")

const (
	tableFile  = "../docs/security.md"
	tableBegin = "<!-- begin of the table that TestEveryDoor writes -->\n"
	tableEnd   = "<!-- end of the table -->"
)

// doors are dashboards on the same servers, with a dead letter and a task that only permitted requests may change.
type doors struct {
	*testBundle

	task string // path of the Asynqmon call that deletes the task

	users    *door // people sign in; Asynqmon is writable
	readOnly *door // people sign in; Asynqmon is read-only
	proxied  *door // people sign in, or a proxy on this machine names the user
	distant  *door // people sign in, or a proxy on another machine names the user
	local    *door // open: no sign-in
	named    *door // people sign in; only one Host is accepted
}

func setupDoors(t *testing.T) *doors {
	t.Helper()
	d := &doors{testBundle: setup(t)}
	d.bury(t, "a", 1, "no")
	d.task = d.sendTask(t)
	header := auth.Options{Users: people(), Header: "X-Forwarded-User", Operators: []string{"petra"}}
	here, elsewhere := header, header
	here.Proxies, here.Hosts = auth.Proxies{netip.MustParsePrefix("127.0.0.0/8")}, []string{"127.0.0.1"} // the Host that the proxy passes on
	elsewhere.Proxies = auth.Proxies{netip.MustParsePrefix("192.0.2.0/24")}
	d.users = d.serve(t, true, auth.Options{Users: people()})
	d.readOnly = d.serve(t, false, auth.Options{Users: people()})
	d.proxied = d.serve(t, true, here)
	d.distant = d.serve(t, true, elsewhere)
	d.local = d.serve(t, true, auth.Options{})
	d.named = d.serve(t, true, auth.Options{Users: people(), Hosts: []string{"aw.example"}})
	return d
}

// attempt is one row of the table.
type attempt struct {
	who, what string
	do        func(t *testing.T, d *doors) answer
	status    int
	said      string // part of the body, or of the Location header
	means     string // last column of the table
}

// request returns an attempt without a session.
func request(at func(*doors) *door, method, target, form string, headers ...string) func(*testing.T, *doors) answer {
	return func(t *testing.T, d *doors) answer {
		t.Helper()
		return at(d).send(t, method, strings.ReplaceAll(target, "TASK", d.task), form, headers...)
	}
}

// signed returns an attempt of a user who has signed in.
func signed(name string, at func(*doors) *door, method, target, form string, headers ...string) func(*testing.T, *doors) answer {
	return func(t *testing.T, d *doors) answer {
		t.Helper()
		return at(d).as(t, name).send(t, method, strings.ReplaceAll(target, "TASK", d.task), form, headers...)
	}
}

const (
	ours   = "Sec-Fetch-Site: same-origin"
	html   = "Accept: text/html"
	deadly = "key=a"
)

func atUsers(d *doors) *door    { return d.users }
func atReadOnly(d *doors) *door { return d.readOnly }
func atProxied(d *doors) *door  { return d.proxied }
func atDistant(d *doors) *door  { return d.distant }
func atLocal(d *doors) *door    { return d.local }
func atNamed(d *doors) *door    { return d.named }

// refusals are attempts that must change nothing.
func refusals() []attempt {
	const nobody, viewer, operator = "nobody", "a viewer", "an operator"
	signIn := "/signin?next="
	list := []attempt{
		{nobody, "`GET /dead` with a browser", request(atUsers, http.MethodGet, "/dead", "", html), 303, signIn + "%2Fdead", "to the sign-in, and back afterwards"},
		{nobody, "`GET /dead` with a program", request(atUsers, http.MethodGet, "/dead", ""), 401, "Sign in first", "refused"},
		{nobody, "`GET /asynq/api/queues`", request(atUsers, http.MethodGet, "/asynq/api/queues", ""), 401, "Sign in first", "refused"},
		{nobody, "`POST /dead/redrive`", request(atUsers, http.MethodPost, "/dead/redrive", deadly, ours), 401, "Sign in first", "refused"},
		{nobody, "`GET /nothing`, an unknown path", request(atUsers, http.MethodGet, "/nothing", ""), 401, "Sign in first", "the same as for known paths"},
		{nobody, "`GET /metrics`, `/healthz`, `/readyz`", request(atUsers, http.MethodGet, "/metrics", ""), 200, "", "open to monitoring; contains no counter keys"},
		{nobody, "`GET /static/style.css`", request(atUsers, http.MethodGet, "/static/style.css", ""), 200, "", "open: a part of the program"},
		{viewer, "`POST /dead/redrive`", signed("vic", atUsers, http.MethodPost, "/dead/redrive", deadly, ours), 403, "you are a viewer", "refused"},
		{viewer, "`POST /dead/discard`, confirmed", signed("vic", atUsers, http.MethodPost, "/dead/discard", deadly+"&confirm=yes", ours), 403, "you are a viewer", "refused"},
		{viewer, "`POST /keys/flush`", signed("vic", atUsers, http.MethodPost, "/keys/flush", deadly, ours), 403, "you are a viewer", "refused"},
		{viewer, "`DELETE` of a task in Asynqmon, with `AFTERWRITE_DASHBOARD_WRITE`", signed("vic", atUsers, http.MethodDelete, "TASK", "", ours), 403, "you are a viewer", "refused"},
		{operator, "`DELETE` of a task in Asynqmon, without `AFTERWRITE_DASHBOARD_WRITE`", signed("olga", atReadOnly, http.MethodDelete, "TASK", "", ours), 405, "", "refused"},
		{operator, "`GET /dead/redrive?key=a`", signed("olga", atUsers, http.MethodGet, "/dead/redrive?key=a", "", html), 405, "", "only POST acts"},
		{operator, "`GET` with `X-HTTP-Method-Override: POST`", signed("olga", atUsers, http.MethodGet, "/dead/redrive?key=a", "", "X-HTTP-Method-Override: POST"), 405, "", "the header is ignored"},
		{operator, "`GET` of a task with `X-HTTP-Method-Override: DELETE` and `_method=DELETE`", signed("olga", atUsers, http.MethodGet, "TASK?_method=DELETE", "", "X-HTTP-Method-Override: DELETE"), 200, "<!doctype html>", "ignored too: a page, and the task is not deleted"},
		{"an operator's browser", "`POST` from another site (`Sec-Fetch-Site: cross-site`)", signed("olga", atUsers, http.MethodPost, "/dead/redrive", deadly, "Sec-Fetch-Site: cross-site"), 403, "another site", "refused"},
		{"an operator's browser", "`POST` from a sister domain (`same-site`)", signed("olga", atUsers, http.MethodPost, "/dead/redrive", deadly, "Sec-Fetch-Site: same-site"), 403, "another site", "refused"},
		{"an old browser", "`POST` with `Origin: https://evil.example`", signed("olga", atUsers, http.MethodPost, "/dead/redrive", deadly, "Origin: https://evil.example"), 403, "another site", "refused"},
		{"an old browser", "`POST` with `Origin: null` (a sandboxed frame)", signed("olga", atUsers, http.MethodPost, "/dead/redrive", deadly, "Origin: null"), 403, "another site", "refused"},
		{"an operator's browser", "`DELETE` of a task from another site", signed("olga", atUsers, http.MethodDelete, "TASK", "", "Sec-Fetch-Site: cross-site"), 403, "another site", "refused"},
		{"another site's page", "signs somebody in (`POST /signin`, cross-site)", request(atUsers, http.MethodPost, "/signin", "name=vic&password="+url.QueryEscape(password), "Sec-Fetch-Site: cross-site"), 403, "another site", "refused"},
		{"an untrusted address", "`X-Forwarded-User: petra`, an operator's name", request(atDistant, http.MethodGet, "/dead", "", "X-Forwarded-User: petra"), 401, "Sign in first", "the header counts from trusted proxies only"},
		{"an untrusted address", "the same, and `X-Forwarded-For: 192.0.2.1`, the proxy's", request(atDistant, http.MethodGet, "/dead", "", "X-Forwarded-User: petra", "X-Forwarded-For: 192.0.2.1"), 401, "Sign in first", "the address of the connection counts, not the header"},
		{"nobody", "`X-Forwarded-User: petra` where no proxy is trusted", request(atUsers, http.MethodGet, "/dead", "", "X-Forwarded-User: petra"), 401, "Sign in first", "the header is ignored"},
		{"a trusted proxy", "names two users", request(atProxied, http.MethodGet, "/dead", "", "X-Forwarded-User: vic", "X-Forwarded-User: petra"), 400, "header is invalid", "refused: the visitor sent one of them"},
		{"a trusted proxy", "names `petra, root`", request(atProxied, http.MethodGet, "/dead", "", "X-Forwarded-User: petra, root"), 400, "header is invalid", "refused: not a name"},
		{"a trusted proxy", "names a user who is not an operator, who posts", request(atProxied, http.MethodPost, "/dead/redrive", deadly, ours, "X-Forwarded-User: paul"), 403, "you are a viewer", "refused"},
		{"a trusted proxy", "names nobody", request(atProxied, http.MethodGet, "/dead", "", "X-Forwarded-User:"), 401, "Sign in first", "refused"},
		{"a page in a browser on the proxy's machine", "`Host: evil.example` (DNS rebinding) and `X-Forwarded-User: petra`, posting", request(atProxied, http.MethodPost, "/dead/redrive", deadly, ours, "Host: evil.example", "X-Forwarded-User: petra"), 421, "does not answer to that name", "refused: with a proxy on its machine, the dashboard does not start without `AFTERWRITE_DASHBOARD_HOSTS`"},
		{"nobody", "a cookie that was made up", request(atUsers, http.MethodGet, "/dead", "", "Cookie: afterwrite=AAAAAAAAAAAAAAAAAAAAAAAAAA"), 401, "Sign in first", "refused"},
		{"nobody", "a cookie of 10,000 characters", request(atUsers, http.MethodGet, "/dead", "", "Cookie: afterwrite="+strings.Repeat("A", 10_000)), 401, "Sign in first", "refused"},
		{"this machine's user", "`Host: evil.example` (DNS rebinding)", request(atLocal, http.MethodGet, "/dead", "", "Host: evil.example"), 421, "does not answer to that name", "without a sign-in, only localhost, 127.0.0.0/8 and ::1 are accepted"},
		{"this machine's user", "`Host: 127.0.0.1.evil.example`", request(atLocal, http.MethodGet, "/dead", "", "Host: 127.0.0.1.evil.example"), 421, "does not answer to that name", "refused"},
		{"this machine's user", "`Host: localhost.evil.example:80`, posting", request(atLocal, http.MethodPost, "/dead/redrive", deadly, ours, "Host: localhost.evil.example:80"), 421, "does not answer to that name", "refused"},
		{"somebody elsewhere", "through a proxy on this machine (`X-Forwarded-For`)", request(atLocal, http.MethodGet, "/dead", "", "X-Forwarded-For: 198.51.100.7"), 403, "came through a proxy", "refused: the visitor may be on another machine"},
		{"somebody elsewhere", "the same with a browser through a proxy that adds nothing, posting (`Origin: http://aw.example`)", request(atLocal, http.MethodPost, "/dead/redrive", deadly, ours, "Origin: http://aw.example"), 403, "not on this machine", "refused; but `GET` shows pages, so set users behind a proxy"},
		{"an operator", "at a name that is not in `AFTERWRITE_DASHBOARD_HOSTS`", request(atNamed, http.MethodGet, "/signin", "", "Host: other.example"), 421, "does not answer to that name", "refused"},
	}
	return append(list, tricks()...)
}

// tricks are attempts with unusual spellings of a path.
func tricks() []attempt {
	var list []attempt
	for _, path := range []string{
		"//dead", "/./dead", "/%2e/dead", "/%64ead", "/dead/", "/DEAD", "/dead%2f", "/%2fdead", "/dead;x", "/dead%00", "/static/../dead",
		"/static/%2e%2e/dead", "/static/..%2fdead", "/signin/../dead", "/signin%2f..%2fdead", "/asynq/../dead", "/asynq//api/queues", "/Asynq",
		"/metrics/../dead", "http://127.0.0.1/dead",
	} {
		list = append(list, attempt{
			"nobody", "`GET " + path + "`", request(atUsers, http.MethodGet, path, ""), 401, "Sign in first", "refused: no spelling of a path bypasses the sign-in",
		})
	}
	for _, path := range []string{"//dead/redrive", "/dead//redrive", "/dead/%72edrive", "/signin/../dead/redrive"} {
		list = append(list, attempt{
			"nobody", "`POST " + path + "`", request(atUsers, http.MethodPost, path, deadly, ours), 401, "Sign in first", "refused",
		})
	}
	for _, path := range []string{"/asynq//api/queues/aw-flush/pending_tasks/drain:03:1", "/dead/..TASK", "/asynq/..TASK"} {
		list = append(list, attempt{
			"a viewer", "`DELETE " + strings.ReplaceAll(path, "TASK", "/asynq/api/…") + "`", signed("vic", atUsers, http.MethodDelete, path, "", ours), 400, "not in its plain form",
			"refused: changes need the plain form of a path",
		})
	}
	for _, target := range []string{
		"DELETE TASK?", "POST /asynq/api/queues/aw-flush:pause?:archive", "DELETE /asynq/api/queues/aw-flush/pending_tasks/x/%2e%2e/%2e%2e/pending_tasks:delete_all",
		"DELETE /asynq/api/queues/aw-flush/pending_tasks/x%2f..%2f..%2fpending_tasks:delete_all",
	} {
		method, path, _ := strings.Cut(target, " ")
		list = append(list, attempt{
			"an operator", "`" + strings.ReplaceAll(target, "TASK", "/asynq/api/…") + "`", signed("olga", atUsers, method, path, "", ours), 400, "nothing was changed",
			"refused: a change needs a plain path without a query",
		})
	}
	return list
}

// stories are attempts of several steps.
func stories() []attempt {
	return []attempt{
		{"nobody", "a wrong password, ten times", wrong("olga", 10), 401, "The name or the password is wrong", "refused"},
		{"nobody", "a wrong password, the 11th to 20th time", wrong("olga", 20), 429, "Too many attempts", "with `Retry-After`; then ten a minute"},
		{"nobody", "then the correct one", func(t *testing.T, d *doors) answer {
			t.Helper()
			at := d.serve(t, true, auth.Options{Users: people(), Now: still()})
			guess(t, at, "olga", 10)
			return at.post(t, "/signin", url.Values{"name": {"olga"}, "password": {password}})
		}, 429, "Too many attempts", "refused too, so that guessing is no faster"},
		{"a viewer", "the correct password, the 31st time", func(t *testing.T, d *doors) answer {
			t.Helper()
			at := d.serve(t, true, auth.Options{Users: people(), Now: still()})
			for range 30 {
				at.as(t, "vic")
			}
			return at.post(t, "/signin", url.Values{"name": {"vic"}, "password": {password}})
		}, 429, "Too many attempts", "with `Retry-After`; then twelve a minute, since each costs CPU time and leaves a session"},
		{"a trusted proxy's visitor", "the correct password, after ten wrong ones of another visitor (`X-Forwarded-For: 198.51.100.7:50123`, with its port)", func(t *testing.T, d *doors) answer {
			t.Helper()
			at := d.serve(t, true, auth.Options{Users: people(), Proxies: auth.Proxies{netip.MustParsePrefix("127.0.0.0/8")}, Now: still()})
			other := "X-Forwarded-For: 198.51.100.7:50123"
			for range 10 {
				require.Equal(t, http.StatusUnauthorized, at.post(t, "/signin", url.Values{"name": {"vic"}, "password": {"x"}}, other).status)
			}
			require.Equal(t, http.StatusTooManyRequests, at.post(t, "/signin", url.Values{"name": {"vic"}, "password": {"x"}}, other).status)
			return at.post(t, "/signin", url.Values{"name": {"vic"}, "password": {password}}, "X-Forwarded-For: 198.51.100.8:50123")
		}, 303, "", "signed in: each visitor has a limit of their own"},
		{"nobody", "an unknown name", wrong("nobody", 1), 401, "The name or the password is wrong", "the same answer, after the same work"},
		{"an operator", "a session after its sign-out", func(t *testing.T, d *doors) answer {
			t.Helper()
			olga := d.users.as(t, "olga")
			require.Equal(t, http.StatusOK, olga.get(t, "/dead").status)
			require.Equal(t, http.StatusSeeOther, olga.post(t, "/signout", nil).status)
			return olga.send(t, http.MethodGet, "/dead", "")
		}, 401, "Sign in first", "refused, on every dashboard of that Redis"},
		{"an operator", "live updates (`GET /live`) that are open at the sign-out", func(t *testing.T, d *doors) answer {
			t.Helper()
			olga := d.users.as(t, "olga")
			updates := watch(t, "http://"+olga.address+"/live?page=overview&every=1", olga.cookie)
			require.NotNil(t, updates.next(t))
			require.Equal(t, http.StatusSeeOther, olga.post(t, "/signout", nil).status)
			for events := 0; updates.next(t) != nil; events++ {
				require.Less(t, events, 5, "the updates do not end")
			}
			return olga.send(t, http.MethodGet, "/live?page=overview&every=1", "")
		}, 401, "Sign in first", "the updates end in that process; in others within ten minutes"},
		{"an operator", "a session with one character changed", func(t *testing.T, d *doors) answer {
			t.Helper()
			olga := d.users.as(t, "olga")
			last := olga.cookie[len(olga.cookie)-1]
			olga.cookie = olga.cookie[:len(olga.cookie)-1] + string('A'+(last-'A'+1)%26)
			return olga.send(t, http.MethodGet, "/dead", "")
		}, 401, "Sign in first", "refused"},
		{"an operator", "a session after the password was changed", func(t *testing.T, d *doors) answer {
			t.Helper()
			olga := d.users.as(t, "olga")
			others := people()
			others[0].Hash = strings.Replace(hash(), hash()[8:12], "abcd", 1)
			return (&door{address: d.serve(t, true, auth.Options{Users: others}).address, cookie: olga.cookie}).send(t, http.MethodGet, "/dead", "")
		}, 401, "Sign in first", "refused"},
		{"an operator", "a session after the user was removed", func(t *testing.T, d *doors) answer {
			t.Helper()
			olga := d.users.as(t, "olga")
			return (&door{address: d.serve(t, true, auth.Options{Users: people()[1:]}).address, cookie: olga.cookie}).send(t, http.MethodGet, "/dead", "")
		}, 401, "Sign in first", "refused"},
		{"an operator", "a session cookie that was planted before the sign-in", func(t *testing.T, d *doors) answer {
			t.Helper()
			vic := d.users.as(t, "vic")
			olga := vic.post(t, "/signin", url.Values{"name": {"olga"}, "password": {password}})
			require.NotEqual(t, vic.cookie, cookieOf(olga))
			return vic.send(t, http.MethodGet, "/dead", "")
		}, 401, "Sign in first", "a sign-in begins a new session, and ends that of the cookie"},
		{"an operator", "`POST /signin` with `next=//evil.example`", func(t *testing.T, d *doors) answer {
			t.Helper()
			return d.users.post(t, "/signin", url.Values{"name": {"vic"}, "password": {password}, "next": {"//evil.example"}})
		}, 303, "", "redirected to `/`: a sign-in leads to pages of this server only"},
	}
}

// wrong returns the answer to the nth wrong password, at a dashboard of its own.
func wrong(name string, n int) func(*testing.T, *doors) answer {
	return func(t *testing.T, d *doors) answer {
		t.Helper()
		return guess(t, d.serve(t, true, auth.Options{Users: people(), Now: still()}), name, n)
	}
}

// still returns a clock that stands still, so that no attempt is given back while a slow machine checks passwords.
func still() func() time.Time {
	now := time.Now()
	return func() time.Time { return now }
}

func guess(t *testing.T, at *door, name string, n int) (last answer) {
	t.Helper()
	for i := range n {
		last = at.post(t, "/signin", url.Values{"name": {name}, "password": {"wrong " + strconv.Itoa(i)}})
	}
	require.Equal(t, last.status == http.StatusTooManyRequests, last.header.Get("Retry-After") != "")
	return last
}

// openings are attempts that must succeed, so that the refusals prove something. They change data.
func openings() []attempt {
	return []attempt{
		{"a viewer", "`GET /dead`", signed("vic", atUsers, http.MethodGet, "/dead", "", html), 200, "", "shown, without buttons"},
		{"a trusted proxy", "names `paul`, who is not an operator", request(atProxied, http.MethodGet, "/dead", "", "X-Forwarded-User: paul"), 200, "paul", "shown to a viewer"},
		{"an operator", "at the name in `AFTERWRITE_DASHBOARD_HOSTS`, in upper case and with a port", request(atNamed, http.MethodGet, "/signin", "", "Host: AW.Example:443"), 200, "", "answered"},
		{"this machine's user", "`Host: localhost:8081`, `[::1]:8081`", request(atLocal, http.MethodGet, "/dead", "", "Host: localhost:8081"), 200, "local", "an operator"},
		{"an operator", "`DELETE` of a task in Asynqmon, with `AFTERWRITE_DASHBOARD_WRITE`", signed("olga", atUsers, http.MethodDelete, "TASK", "", ours), 204, "", "done, and recorded"},
		{"a client", "names a counter `x/../../scheduled_tasks:delete_all`, and an operator deletes its task in Asynqmon", func(t *testing.T, d *doors) answer {
			t.Helper()
			for _, key := range []counter.Key{"x/../../scheduled_tasks:delete_all", "other"} {
				require.NoError(t, tasks.Send(t.Context(), asynq.NewClientFromRedisClient(d.redis), tasks.Retry(key, 2, time.Hour)))
			}
			target := click(t, "/asynq/api/queues/"+tasks.QueueRetry+"/scheduled_tasks/", tasks.RetryID("x/../../scheduled_tasks:delete_all"))
			got := d.users.as(t, "olga").send(t, http.MethodDelete, target, "", ours)
			require.Equal(t, []counter.Key{"other"}, d.retries(t))
			return got
		}, 204, "", "only that task is deleted"},
		{"a trusted proxy", "names `petra`, an operator, who posts", request(atProxied, http.MethodPost, "/dead/redrive", deadly, ours, "X-Forwarded-User: petra"), 303, "/dead?did=", "done, and recorded"},
	}
}

func TestEveryDoor(t *testing.T) {
	t.Parallel()
	d := setupDoors(t)
	// Each dashboard limits an address to 10 wrong passwords, and a name to 30 sign-ins. The attempts stay below that.
	var table strings.Builder
	table.WriteString("| who | tries | answer | |\n| --- | --- | --- | --- |\n")
	try := func(a attempt) {
		got := a.do(t, d)
		where := fmt.Sprintf("%s: %s: %d %s", a.who, a.what, got.status, got.body)
		require.Equal(t, a.status, got.status, where)
		require.Contains(t, got.body+got.header.Get("Location"), a.said, where)
		if got.status != http.StatusOK || !strings.Contains(a.what, "/metrics") {
			require.Contains(t, got.header.Get("Content-Security-Policy"), "frame-ancestors 'none'", where)
		}
		table.WriteString("| " + a.who + " | " + a.what + " | " + strconv.Itoa(a.status) + " | " + a.means + " |\n")
	}
	for _, a := range append(refusals(), stories()...) {
		try(a)
	}
	_, err := d.operator.Get(t.Context(), "a")
	require.NoError(t, err, "it is still a dead letter")
	require.True(t, d.taskIsThere(t))
	actions, err := d.store.Actions(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Empty(t, actions, "no refused attempt was recorded")

	for _, a := range openings() {
		try(a)
	}
	require.False(t, d.taskIsThere(t))
	actions, err = d.store.Actions(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Len(t, actions, 3)
	require.Equal(t, "petra", actions[0].Who)
	compareTable(t, table.String())
}

// compareTable compares the table with the documentation or, with -write, writes it there.
func compareTable(t *testing.T, table string) {
	t.Helper()
	text, err := os.ReadFile(tableFile)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), tableBegin)
	require.True(t, found)
	documented, after, found := strings.Cut(rest, tableEnd)
	require.True(t, found)
	if *write {
		require.NoError(t, os.WriteFile(tableFile, []byte(before+tableBegin+table+tableEnd+after), 0o644))
		return
	}
	require.Equal(t, documented, table, "docs/security.md differs from the program; to update it: go test ./dashboard -run TestEveryDoor -write")
}

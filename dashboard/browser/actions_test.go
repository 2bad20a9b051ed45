package browser_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

const password = "correct horse battery"

// people returns the variable that lets olga, an operator, and vic, a viewer, sign in.
func people(t *testing.T) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 10) // the lowest cost that is accepted
	require.NoError(t, err)
	return "AFTERWRITE_DASHBOARD_USERS=olga:operator:" + string(hash) + ",vic:" + string(hash)
}

// impatient returns variables with which a refused row is soon a dead letter.
func impatient() []string {
	return []string{"AFTERWRITE_MAX_ATTEMPTS=2", "AFTERWRITE_RETRY_BACKOFF=10ms"}
}

// signIn opens a page and types the name and the password into the sign-in.
func (b *tab) signIn(t *testing.T, s *system, name string) {
	t.Helper()
	b.visit(t, s.dashboard.url("/dead"))
	b.do(t,
		chromedp.WaitVisible("#name"),
		chromedp.SendKeys("#name", name),
		chromedp.SendKeys("#password", password+"\n"),
		chromedp.WaitVisible(".visitor"),
	)
}

// bury makes four dead letters, as they arise in practice: it adds constraints that the next values violate. It returns the database, so
// that the test can drop the constraints.
func (s *system) bury(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", s.postgres.URL())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	s.set(t, "page:/pricing", 10_391)
	s.set(t, "video:big-buck-bunny:plays", 2_147_483_640)
	s.set(t, "post:8841:likes", 512)
	localtest.Eventually(t, patience, func() (bool, string) {
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM counters WHERE key LIKE '%:%:%' OR key = 'page:/pricing'").Scan(&n))
		return n == 3, "the rows are not there"
	})
	_, err = db.ExecContext(t.Context(), `ALTER TABLE counters
		ADD CONSTRAINT pricing_is_frozen CHECK (key <> 'page:/pricing' OR value <= 10391),
		ADD CONSTRAINT fits_in_int4 CHECK (key NOT LIKE '%:plays' OR value < 2147483648),
		ADD CONSTRAINT likes_not_negative CHECK (key NOT LIKE '%:likes' OR value >= 0),
		ADD CONSTRAINT no_keys_of_users CHECK (key NOT LIKE 'user:%')`)
	require.NoError(t, err)
	s.set(t, "page:/pricing", 10_412)
	s.set(t, "video:big-buck-bunny:plays", 2_147_483_901)
	s.set(t, "post:8841:likes", -3)
	s.set(t, "user:5f0c1b1e-7c1f-4d0e-9a52-0f4f6a1d9c77:unread-notifications", 41)
	return db
}

// letters waits until the page lists n dead letters.
func (b *tab) letters(t *testing.T, s *system, n int) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		b.visit(t, s.dashboard.url("/dead"))
		return evaluate[int](t, b, "document.querySelectorAll('.letters tbody').length") == n, b.text(t, "main")
	})
}

// value returns a counter's value in Postgres.
func value(t *testing.T, db *sql.DB, key string) int64 {
	t.Helper()
	var v int64
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT value FROM counters WHERE key = $1", key).Scan(&v))
	return v
}

func TestOperatorsActAndViewersDoNot(t *testing.T) {
	t.Parallel()
	s := start(t, append(impatient(), people(t))...)
	db := s.bury(t)
	b := open(t)
	b.signIn(t, s, "olga")
	b.letters(t, s, 4)
	for _, path := range []string{"/dead", "/keys?key=page:/pricing", "/actions", "/keys?key=no:such"} {
		b.visit(t, s.dashboard.url(path))
		b.readable(t, path)
	}

	_, err := db.ExecContext(t.Context(), "ALTER TABLE counters DROP CONSTRAINT pricing_is_frozen")
	require.NoError(t, err)
	b.visit(t, s.dashboard.url("/dead"))
	b.click(t, `input[value="page:/pricing"]`)
	b.click(t, ".bulk button.primary")
	b.waitForText(t, ".notice.good", "1 redriven; 1 in Postgres now")
	require.Equal(t, int64(10_412), value(t, db, "page:/pricing"))

	b.withoutScripts(t)
	b.click(t, `button[aria-label="Discard video:big-buck-bunny:plays"]`)
	b.do(t, chromedp.WaitVisible(".danger.solid"))
	b.readable(t, "the question before a discard")
	b.click(t, ".danger.solid")
	b.waitForText(t, ".notice.good", "discarded 2,147,483,901")
	require.Equal(t, int64(2_147_483_640), value(t, db, "video:big-buck-bunny:plays"))
	b.visit(t, s.dashboard.url("/actions"))
	require.Contains(t, b.text(t, ".stack"), "olga")
	b.readable(t, "the list of actions")
	b.click(t, ".visitor button")
	b.do(t, chromedp.WaitVisible("#password"))
	b.readable(t, "the sign-in")

	b.signIn(t, s, "vic")
	b.letters(t, s, 2)
	require.Zero(t, evaluate[int](t, b,
		`document.querySelectorAll('main button[formaction], main form[method=post], main input[type=checkbox]').length`))
	status, err := chromedp.Run(b.ctx, chromedp.Evaluate[int](
		`fetch('/dead/redrive', {method: 'POST', body: new URLSearchParams({key: 'post:8841:likes'})}).then(r => r.status)`,
		chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	require.Equal(t, 403, status)
	b.forgive(t, 1) // the console shows the rejected fetch
	b.letters(t, s, 2)
	b.requireNoProblems(t, s.dashboard)
}

// Enter presses the first button of a form. That must be the button for the chosen rows, not the button of a single row.
func TestEnterRedrivesTheChosenOne(t *testing.T) {
	t.Parallel()
	s := start(t, impatient()...)
	db := s.bury(t)
	b := open(t)
	b.letters(t, s, 4)
	_, err := db.ExecContext(t.Context(), "ALTER TABLE counters DROP CONSTRAINT pricing_is_frozen, DROP CONSTRAINT likes_not_negative, "+
		"DROP CONSTRAINT fits_in_int4, DROP CONSTRAINT no_keys_of_users")
	require.NoError(t, err)
	b.visit(t, s.dashboard.url("/dead"))
	last := evaluate[string](t, b, `[...document.querySelectorAll('.letters input')].at(-1).value`)
	b.focus(t, `input[value="`+last+`"]`)
	b.do(t, chromedp.KeyEvent(" "), chromedp.KeyEvent(kb.Enter))
	b.waitForText(t, ".notice.good", "redrive "+last)
	b.waitForText(t, ".notice.good", "1 redriven; 1 in Postgres now")
	require.Equal(t, 3, evaluate[int](t, b, "document.querySelectorAll('.letters tbody').length"), "the others are left alone")

	b.focus(t, ".letters input")
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.waitForText(t, "main", "No counter was chosen: nothing was changed.")
	b.forgive(t, 1) // the console shows the rejected request
	b.requireNoProblems(t, s.dashboard)
}

func TestAPageLeadsToTheSignInWhenItsSessionIsOver(t *testing.T) {
	t.Parallel()
	s := start(t, people(t))
	b := open(t)
	b.signIn(t, s, "vic")
	b.visit(t, s.dashboard.url("/"))
	b.waitForText(t, connection, "live")

	s.dashboard.stop()
	b.waitForText(t, connection, "no connection")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.endSessions(ctx, t)
	s.run(t, s.dashboard)
	b.do(t, chromedp.WaitVisible("#password"))
	b.signIn(t, s, "vic")
	require.Contains(t, evaluate[string](t, b, "location.pathname"), "/dead")
}

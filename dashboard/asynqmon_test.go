package dashboard_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/tasks"
)

// click returns the path that a browser requests for a button on Asynqmon's page, which puts the task's ID into the path without
// escaping it.
func click(t *testing.T, path, id string) string {
	t.Helper()
	page, err := url.Parse("http://localhost/asynq/queues/" + tasks.QueueRetry)
	require.NoError(t, err)
	target, err := page.Parse(path + id)
	require.NoError(t, err)
	return target.RequestURI()
}

// retries returns the keys that have a retry task in Asynq.
func (d *testBundle) retries(t *testing.T) []counter.Key {
	t.Helper()
	found, err := asynq.NewInspectorFromRedisClient(d.redis).ListScheduledTasks(tasks.QueueRetry)
	require.NoError(t, err)
	keys := make([]counter.Key, 0, len(found))
	for _, task := range found {
		key, err := tasks.DecodeKeys(task.Payload)
		require.NoError(t, err)
		keys = append(keys, key...)
	}
	slices.Sort(keys)
	return keys
}

// lastActions returns the audit log, newest first.
func (d *testBundle) lastActions(t *testing.T) []store.Action {
	t.Helper()
	actions, err := d.store.Actions(t.Context(), 0, 100)
	require.NoError(t, err)
	return actions
}

// Clients choose the keys, so no key may change what an operator's click does.
func TestAsynqmonClickActsOnItsOwnTask(t *testing.T) {
	t.Parallel()
	d := setup(t)
	keys := []counter.Key{
		"x/../../scheduled_tasks:delete_all", "x/../../../aw-flush:pause?", `x\..\..\y`, "x/%2e%2e/y", "b?x", "b#x", "b", "a/b", "~", "é",
	}
	slices.Sort(keys)
	for _, key := range keys {
		require.NoError(t, tasks.Send(t.Context(), asynq.NewClientFromRedisClient(d.redis), tasks.Retry(key, 2, time.Hour)))
	}
	require.Equal(t, keys, d.retries(t))
	olga := d.serve(t, true, auth.Options{Users: people()}).as(t, "olga")
	for len(keys) > 0 {
		target := click(t, "/asynq/api/queues/"+tasks.QueueRetry+"/scheduled_tasks/", tasks.RetryID(keys[0]))
		require.Equal(t, http.StatusNoContent, olga.send(t, http.MethodDelete, target, "", ours).status, target)
		keys = keys[1:]
		require.Equal(t, keys, d.retries(t), target)
	}
}

func TestFailedAsynqmonCallIsRecordedAsAFailure(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.sendTask(t)
	olga := d.serve(t, true, auth.Options{Users: people()}).as(t, "olga")
	const queue = "/asynq/api/queues/" + tasks.QueueFlush
	for _, test := range []struct {
		method, target, body string
		status               int
		outcome              string
		failed               bool
	}{
		{http.MethodDelete, queue + "/pending_tasks/flush:a/b", "", 404, "answered 404: Asynqmon has no such call", true},
		{http.MethodDelete, queue + "/pending_tasks/flush:a%2Fb", "", 404, "answered 404: Asynqmon has no such call", true},
		{http.MethodDelete, queue + "/pending_tasks/flush:a", "", 500, "answered 500: ", true},
		{http.MethodPost, queue + "/pending_tasks:batch_delete", `{"task_ids":["flush:a"]}`, 200, "answered 200, but 1 task failed: ", true},
		{http.MethodPost, queue + "/pending_tasks:batch_archive", `{"task_ids":["flush:a"]}`, 200, "answered 200, but 1 task failed: ", true},
		{http.MethodPost, queue + "/pending_tasks:batch_delete", `{"task_ids":["drain:03:1"]}`, 200, "answered 200: ", false},
		{http.MethodDelete, queue + "/pending_tasks:delete_all", "", 200, `answered 200: {"deleted":0}`, false},
	} {
		got := olga.send(t, test.method, test.target, test.body, ours)
		require.Equal(t, test.status, got.status, "%s: %s", test.target, got.body)
		last := d.lastActions(t)[0]
		require.NotNil(t, last.Outcome)
		require.True(t, strings.HasPrefix(*last.Outcome, test.outcome), "%s: %s", test.target, *last.Outcome)
		require.Equal(t, test.failed, last.Failed, test.target)
	}
}

func TestOverviewNamesAQueuePausedInAsynqmon(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.sendTask(t)
	olga := d.serve(t, true, auth.Options{Users: people()}).as(t, "olga")
	const queue, says = "/asynq/api/queues/" + tasks.QueueFlush, "The queue aw-flush is paused"
	for _, call := range []string{":pause", ":resume"} {
		require.Equal(t, http.StatusNoContent, olga.send(t, http.MethodPost, queue+call, "", ours).status)
		localtest.Eventually(t, 20*time.Second, func() (bool, string) {
			page := olga.get(t, "/").body
			return strings.Contains(page, says) == (call == ":pause"), page
		})
	}
}

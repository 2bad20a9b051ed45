package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

func TestMain(m *testing.M) { localtest.Main(m) }

const patience = 20 * time.Second

// aTime is in the middle of a sweep's and of a purge's interval.
var aTime = time.Date(2026, 3, 1, 12, 30, 2, 500_000_000, time.UTC)

// testBundle is one Redis with any number of schedulers on it.
type testBundle struct {
	redis     *redis.Client
	inspector *asynq.Inspector
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	return newBundle(localtest.Redis(t))
}

func newBundle(client *redis.Client) *testBundle {
	return &testBundle{redis: client, inspector: asynq.NewInspectorFromRedisClient(client)}
}

// options are those of one more scheduler, with a client of its own: Asynq's clients remember what they have published.
func (b *testBundle) options() Options {
	return Options{
		Client:        asynq.NewClientFromRedisClient(b.redis),
		Redis:         b.redis,
		SweepInterval: 5 * time.Second,
		Logger:        slog.New(slog.DiscardHandler),
		Registerer:    prometheus.NewRegistry(),
	}
}

func (b *testBundle) scheduler(t *testing.T) *scheduler {
	t.Helper()
	s, err := newScheduler(b.options())
	require.NoError(t, err)
	return s
}

// pending lists the IDs of the tasks of a type that wait for a worker.
func (b *testBundle) pending(t *testing.T, typename string) []string {
	t.Helper()
	infos, err := b.inspector.ListPendingTasks(tasks.QueueSweep)
	require.NoError(t, err)
	var ids []string
	for _, info := range infos {
		if info.Type == typename {
			ids = append(ids, info.ID)
		}
	}
	return ids
}

// work runs every task that waits, as a worker would, and returns when they are completed.
func (b *testBundle) work(t *testing.T) {
	t.Helper()
	server := asynq.NewServerFromRedisClient(b.redis, asynq.Config{
		Queues: tasks.QueuesIn(nil, "").Weights(), TaskCheckInterval: 10 * time.Millisecond, LogLevel: asynq.FatalLevel,
	})
	require.NoError(t, server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })))
	defer server.Shutdown()
	localtest.Eventually(t, patience, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueSweep)
		require.NoError(t, err)
		return info.Pending+info.Active == 0, fmt.Sprintf("%d pending, %d active", info.Pending, info.Active)
	})
}

func sweepID(at time.Time) string {
	return fmt.Sprintf("sweep:%d", tasks.Bucket(at, 5*time.Second))
}

func TestTickSendsOneSweepForEachIntervalAndOnePurgeForEachHour(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.scheduler(t)

	s.tick(t.Context(), aTime)
	s.tick(t.Context(), aTime.Add(5*time.Second))
	s.tick(t.Context(), aTime.Add(time.Hour))

	require.ElementsMatch(t, []string{
		sweepID(aTime), sweepID(aTime.Add(5 * time.Second)), sweepID(aTime.Add(time.Hour)),
	}, b.pending(t, tasks.TypeSweep))
	require.Len(t, b.pending(t, tasks.TypePurge), 2)
	require.InDelta(t, 3, testutil.ToFloat64(s.metrics.sweeps), 0)
	require.Zero(t, testutil.ToFloat64(s.metrics.errors))
}

func TestTwoSchedulersMakeOneTask(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, second := b.scheduler(t), b.scheduler(t)

	first.tick(t.Context(), aTime)
	second.tick(t.Context(), aTime.Add(time.Millisecond))

	require.Equal(t, []string{sweepID(aTime)}, b.pending(t, tasks.TypeSweep))
	require.Len(t, b.pending(t, tasks.TypePurge), 1)
	require.Zero(t, testutil.ToFloat64(second.metrics.errors))
}

func TestLateSchedulerDoesNotRepeatACompletedTask(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, late := b.scheduler(t), b.scheduler(t)

	first.tick(t.Context(), aTime)
	b.work(t)
	late.tick(t.Context(), aTime.Add(time.Second))

	require.Empty(t, b.pending(t, tasks.TypeSweep))
	require.Empty(t, b.pending(t, tasks.TypePurge))
	require.Empty(t, b.pending(t, tasks.TypeEvict))
	completed, err := b.inspector.ListCompletedTasks(tasks.QueueSweep)
	require.NoError(t, err)
	require.Len(t, completed, 3)
}

func TestTickPublishesTheQueuesAgainAfterAFlush(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.scheduler(t)
	s.tick(t.Context(), aTime)
	require.NoError(t, b.redis.FlushDB(t.Context()).Err())

	s.tick(t.Context(), aTime.Add(5*time.Second))

	queues, err := b.inspector.Queues()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{tasks.QueueFlush, tasks.QueueSweep, tasks.QueueRetry}, queues)
}

// brokenSender fails as long as err is set.
type brokenSender struct {
	tasks.Sender

	err error
}

func (s *brokenSender) EnqueueContext(ctx context.Context, task *asynq.Task, opts ...asynq.Option) (*asynq.TaskInfo, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Sender.EnqueueContext(ctx, task, opts...)
}

func TestErrorsAreCountedAndLoggedOncePerChangeOfState(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var log bytes.Buffer
	options := b.options()
	sender := &brokenSender{Sender: options.Client}
	options.Client, options.Logger = sender, slog.New(slog.NewTextHandler(&log, nil))
	s, err := newScheduler(options)
	require.NoError(t, err)

	for i, failure := range []error{nil, errors.New("no route"), errors.New("no route"), nil, nil} {
		sender.err = failure
		s.tick(t.Context(), aTime.Add(time.Duration(i)*5*time.Second))
	}

	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"))
	require.Equal(t, 1, strings.Count(log.String(), "sent again"))
	require.InDelta(t, 2, testutil.ToFloat64(s.metrics.errors), 0) // the purge had been sent before
	require.InDelta(t, 3, testutil.ToFloat64(s.metrics.sweeps), 0)
}

func TestSweepsDoNotPileUpWithoutAWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var log bytes.Buffer
	options := b.options()
	options.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s, err := newScheduler(options)
	require.NoError(t, err)
	now := aTime
	tick := func(times int) {
		for range times {
			s.tick(t.Context(), now)
			now = now.Add(5 * time.Second)
		}
	}

	tick(720)
	waiting := len(b.pending(t, tasks.TypeSweep)) + len(b.pending(t, tasks.TypePurge)) + len(b.pending(t, tasks.TypeEvict))
	require.Equal(t, maxPending+1, waiting)
	require.Equal(t, 1, strings.Count(log.String(), "no worker takes the sweeps"))
	require.Zero(t, strings.Count(log.String(), "takes the sweeps again"))
	require.InDelta(t, 720-(maxPending-1), testutil.ToFloat64(s.metrics.skipped), 0) // the first tick sent three
	require.Zero(t, testutil.ToFloat64(s.metrics.errors))

	b.work(t)
	tick(2)
	require.Len(t, b.pending(t, tasks.TypeSweep), 2)
	require.Len(t, b.pending(t, tasks.TypePurge), 1, "an hour has passed, and its purge was not forgotten")
	require.Equal(t, 1, strings.Count(log.String(), "no worker takes the sweeps"))
	require.Equal(t, 1, strings.Count(log.String(), "takes the sweeps again"))
}

func TestFailedPurgeIsSentAtTheNextTick(t *testing.T) {
	t.Parallel()
	b := setup(t)
	options := b.options()
	sender := &brokenSender{Sender: options.Client, err: errors.New("no route")}
	options.Client = sender
	s, err := newScheduler(options)
	require.NoError(t, err)

	s.tick(t.Context(), aTime)
	sender.err = nil
	s.tick(t.Context(), aTime.Add(5*time.Second))

	require.Len(t, b.pending(t, tasks.TypePurge), 1)
}

func TestTheNextBoundaryIsNeverMoreThanAnIntervalAway(t *testing.T) {
	t.Parallel()
	const interval = 5 * time.Second
	start := time.UnixMilli(tasks.Bucket(aTime, interval) * interval.Milliseconds())

	require.Equal(t, interval, untilBoundary(start, interval))
	require.Equal(t, time.Millisecond, untilBoundary(start.Add(interval-time.Millisecond), interval))
	require.Equal(t, interval, untilBoundary(start.Add(interval), interval))
}

func TestRunRefusesAnIntervalUnderASecond(t *testing.T) {
	t.Parallel()
	options := setup(t).options()
	options.SweepInterval = 500 * time.Millisecond
	require.ErrorContains(t, Run(t.Context(), options), "at least one second")
}

// running is a scheduler in a goroutine.
type running struct {
	metrics *prometheus.Registry
	stop    func()
}

// start runs a scheduler until stop, which checks that it ended without an error.
func start(t *testing.T, options Options) *running {
	t.Helper()
	registry := prometheus.NewRegistry()
	options.Registerer = registry
	stop := localtest.Run(t, func(ctx context.Context) error { return Run(ctx, options) })
	return &running{metrics: registry, stop: stop}
}

func (r *running) count(t *testing.T, name string) float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0 // not registered yet
}

func TestRunSendsAtOnceAndAtEachBoundary(t *testing.T) {
	t.Parallel()
	b := setup(t)
	options := b.options()
	options.SweepInterval = time.Second
	before := tasks.Bucket(time.Now(), time.Second)

	r := start(t, options)
	other := start(t, options)
	b.waitForSweeps(t, r, 3)
	// On a busy machine a whole second may pass between two ticks. So it waits for three seconds in a row that have a sweep.
	localtest.Eventually(t, patience, func() (bool, string) {
		sweeps := b.pending(t, tasks.TypeSweep)
		return longestRun(t, sweeps) >= 3 && other.count(t, "afterwrite_sweeps_enqueued_total") >= 3, fmt.Sprint(sweeps)
	})
	r.stop()
	other.stop()
	after := tasks.Bucket(time.Now(), time.Second)

	sweeps := b.pending(t, tasks.TypeSweep)
	require.LessOrEqual(t, len(sweeps), int(after-before)+1, "one for each second")
}

// longestRun returns the largest number of sweeps whose buckets follow each other.
func longestRun(t *testing.T, sweeps []string) int {
	t.Helper()
	buckets := make(map[int]bool, len(sweeps))
	for _, id := range sweeps {
		bucket, err := strconv.Atoi(strings.TrimPrefix(id, "sweep:"))
		require.NoError(t, err)
		buckets[bucket] = true
	}
	longest := 0
	for bucket := range buckets {
		n := 1
		for buckets[bucket+n] {
			n++
		}
		longest = max(longest, n)
	}
	return longest
}

func TestRunSurvivesAnOutageOfRedis(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	parsed, err := redis.ParseURL(server.URL())
	require.NoError(t, err)
	parsed.MaxRetries = -1
	client := redis.NewClient(parsed)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	b := newBundle(client)
	options := b.options()
	options.SweepInterval = time.Second
	r := start(t, options)
	b.waitForSweeps(t, r, 1)

	server.Kill()
	localtest.Eventually(t, patience, func() (bool, string) {
		return r.count(t, "afterwrite_scheduler_errors_total") > 0, "no error was counted"
	})
	require.NoError(t, server.Start(t.Context()))

	b.waitForSweeps(t, r, r.count(t, "afterwrite_sweeps_enqueued_total")+1)
	localtest.Eventually(t, patience, func() (bool, string) { // the queue itself is registered again by one of the next sweeps
		infos, err := b.inspector.ListPendingTasks(tasks.QueueSweep)
		return err == nil && len(infos) > 0, fmt.Sprint(err)
	})
	queues, err := b.inspector.Queues()
	require.NoError(t, err)
	require.Contains(t, queues, tasks.QueueSweep)
}

func (b *testBundle) waitForSweeps(t *testing.T, r *running, atLeast float64) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		n := r.count(t, "afterwrite_sweeps_enqueued_total")
		return n >= atLeast, fmt.Sprintf("%v sweeps", n)
	})
}

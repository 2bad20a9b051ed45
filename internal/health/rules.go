package health

import (
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/tasks"
)

// group determines how Judge uses a rule.
type group int

const (
	alone  group = iota // if it holds, it is the only finding
	outage              // Redis is impaired: comes first
	flow                // whether Postgres keeps up: only the first rule that holds is used, and one always holds
	other               // everything else
)

// rule is one row of the table: a condition, and the finding if it holds. facts.texts replaces the {names} in its texts.
type rule struct {
	code     string
	group    group
	level    Level
	verdict  Verdict
	when     func(*facts) bool
	sentence string
	advice   string
}

const (
	codeKeepsUp = "keeping_up"

	// restarts is the number of workers gone within the last ten minutes up to which new workers explain a late backlog. With more, workers
	// crash repeatedly.
	restarts = 2

	// failoverTime is how long an outage counts as a failover that is due, if there are replicas. Sentinel's down-after-milliseconds is
	// usually 30 s, and a cluster's cluster-node-timeout 15 s; the election follows.
	failoverTime = 45 * time.Second

	codeFailover = "failover"

	stale = " The numbers below are from before."

	takesOver = "Writes are refused until a replica has taken over. With Sentinel (after down-after-milliseconds) or on a cluster (after " +
		"cluster-node-timeout) that happens by itself, and all processes follow within seconds. Otherwise promote a replica, or start " +
		"the server."
	safe = "Writes are safe in Redis.{room} "
)

// denied holds if Redis refuses to serve with the error code.
func denied(word string) func(*facts) bool {
	return func(x *facts) bool { return x.Failed > 0 && x.Denial == word }
}

// refuses holds if Redis refuses writes with the error code.
func refuses(word string) func(*facts) bool {
	return func(x *facts) bool { return x.Refusal == word }
}

// silent holds if no process of the role is alive, although heartbeats arrive.
func silent(role string) func(*facts) bool {
	return func(x *facts) bool { return x.Alive[role] == 0 && !x.Unheard() }
}

// due holds if a replica is likely to take over for a server that is away.
func due(x *facts) bool { return x.Short > 0 && x.Short < failoverTime && x.Redis.Replicas > 0 }

// failedOver holds if Redis has just failed over, and the flow of keys to Postgres shows it.
func failedOver(x *facts) bool {
	return x.Promoted > 0 && (x.late() && x.Back || workersUnknown(x) && !x.Unread && x.Refusal == "")
}

func workersUnknown(x *facts) bool { return x.Alive[RoleWorker] == 0 && x.Unheard() }

// rules are in order of importance: an earlier finding often explains later ones.
var rules = []rule{
	{
		"redis_loading", alone, Bad, Unknown, denied("LOADING"),
		"Redis is loading its data, and has not served us for {failed}.",
		"Writes are refused until it has finished. Wait: it loads some hundred megabytes a second, and its own log shows " +
			"the progress." + stale,
	},
	{
		codeFailover, alone, Bad, Unknown, func(x *facts) bool {
			return x.Failed > 0 && due(x) && (x.Denial == "" || x.Denial == "CLUSTERDOWN" || x.Denial == "MASTERDOWN")
		},
		"A failover of Redis is due: it has not served us for {failed}.", takesOver + stale,
	},
	{
		"redis_cluster_down", alone, Bad, Unknown, denied("CLUSTERDOWN"),
		"The cluster of Redis is down, and has not served us for {failed}.",
		"Writes are refused until it is up. Some slots have no master, and then it serves no slot unless " +
			"cluster-require-full-coverage is no: `redis-cli cluster nodes` shows which. Start that master, or let a replica " +
			"take over." + stale,
	},
	{
		"redis_lost_master", alone, Bad, Unknown, denied("MASTERDOWN"),
		"Redis is a replica that has lost its master, and has not served us for {failed}.",
		"Find out which node is the master, and set REDIS_URL to it (MASTERDOWN)." + stale,
	},
	{
		"redis_wants_password", alone, Bad, Unknown, denied("NOAUTH"),
		"Redis wants a password, and has not served us for {failed}.",
		"Put it into REDIS_URL, here and for every process that lacks it (NOAUTH)." + stale,
	},
	{
		"redis_wrong_password", alone, Bad, Unknown, denied("WRONGPASS"),
		"Redis does not accept our password, and has not served us for {failed}.",
		"Correct the user and the password in REDIS_URL, for all processes (WRONGPASS)." + stale,
	},
	{
		"redis_no_permission", alone, Bad, Unknown, denied("NOPERM"),
		"Redis denies commands or keys, and has not served us for {failed}.",
		"Its ACL lacks commands or keys for the user in REDIS_URL (NOPERM): `redis-cli acl log` shows which." + stale,
	},
	{
		"redis_down", alone, Bad, Unknown, func(x *facts) bool { return x.Failed > 0 },
		"Redis has not answered for {failed}.",
		"Writes are refused until it answers. Check that it runs and that the network reaches it; `afterwrite doctor` shows more." + stale,
	},
	{
		"starting", alone, Warn, Unknown, func(x *facts) bool { return x.Starting },
		"Starting: the first sample is on its way.", "This takes a second or two.",
	},

	{
		codeFailover, outage, Bad, Behind, func(x *facts) bool { return x.Away > 0 && due(x) },
		"A failover of Redis is due: {away} not answer.", takesOver + " The numbers below are without them.",
	},
	{
		"shards_away", outage, Bad, Behind, func(x *facts) bool { return x.Away > 0 && !due(x) },
		"{away} not answer.",
		"A node of Redis is away: writes to its counters are answered 503 or 504, and its unsynced writes wait there. " +
			"Check that it runs, or let a replica of it take over; `redis-cli cluster nodes` shows which is which. " +
			"The numbers below are without it.",
	},
	{
		"redis_cannot_save", outage, Bad, Behind, refuses("MISCONF"),
		"{redis} refuses writes, since it cannot save its data; {waiting}.",
		"{answer} Its disk is full or fails, or it lacks the memory to fork: its own log has the reason (MISCONF). After the next save " +
			"that succeeds it accepts writes again. Do not restart it before that: unsaved writes would be lost.{unheard}",
	},
	{
		codeFailover, outage, Bad, Behind, func(x *facts) bool { return x.Refusal == "READONLY" && x.Short < failoverTime },
		"Redis fails over: it refuses writes, since it is a replica now; {waiting}.",
		"{answer} The processes look for the new master by themselves: with Sentinel, or on a cluster, that takes a second or two. With " +
			"one address, it must lead to the new master (READONLY).{unheard}",
	},
	{
		"redis_is_replica", outage, Bad, Behind, func(x *facts) bool { return x.Refusal == "READONLY" && x.Short >= failoverTime },
		"{redis} refuses writes, since it is a replica; {waiting}.",
		"{answer} Find out which node is the master, and set REDIS_URL to it (READONLY). With Sentinel, or on a cluster, that happens " +
			"automatically within seconds. Writes that only this node has are lost when it syncs with another: keep it until you " +
			"know.{unheard}",
	},
	{
		"redis_lacks_replicas", outage, Bad, Behind, refuses("NOREPLICAS"),
		"{redis} refuses writes, since it has too few replicas; {waiting}.",
		"{answer} Start its replicas again, or lower its min-replicas-to-write (NOREPLICAS).{unheard}",
	},

	{
		"workers_unknown", flow, Warn, Unknown, func(x *facts) bool { return workersUnknown(x) && x.Unread },
		"Which workers run is not known; {waiting}.", "Their heartbeats are on a node of Redis that does not answer.",
	},
	{
		"workers_unknown", flow, Warn, Unknown, func(x *facts) bool { return workersUnknown(x) && x.Refusal != "" },
		"Which workers run is not known; {waiting}.", "", // the finding that Redis refuses writes explains it
	},
	{
		codeFailover, flow, Warn, Unknown, func(x *facts) bool { return failedOver(x) && workersUnknown(x) },
		"Redis failed over {promoted} ago; {waiting}.",
		"Heartbeats were lost, so which workers run is known in a few seconds.",
	},
	{
		"workers_unknown", flow, Warn, Unknown, workersUnknown,
		"Which workers run is not known; {waiting}.", "Their heartbeats are writes to Redis, which refused writes until just now.",
	},
	{
		"no_workers", flow, Bad, Behind, silent(RoleWorker),
		"Workers are not running; {waiting}.",
		safe + "Start `afterwrite worker`; if one ends at once, its log says why.",
	},
	{
		"postgres_down", flow, Bad, Behind, func(x *facts) bool { return x.Up == 0 },
		"Postgres has been down for {outage}.",
		"Writes are safe in Redis, and go to Postgres by themselves when it is back.{room} " +
			"Start Postgres, or read the reason in the log of a worker.",
	},
	{
		"flushes_paused", flow, Bad, Behind, func(x *facts) bool { return x.pausedFlush() != "" },
		"The queue {flush queue} is paused: {waiting}.",
		safe + "Until it is resumed, workers flush keys only when they are long overdue. {resume flush}",
	},
	{
		codeFailover, flow, Warn, Behind, failedOver,
		"Redis failed over {promoted} ago; {waiting}.",
		"They are late for that reason. In a few seconds it is clear whether workers catch up.",
	},
	{
		"redis_back", flow, Warn, Behind, func(x *facts) bool { return x.late() && x.Back },
		"Redis is back; {waiting}.",
		"It was away or refused writes, so they are late. In a few seconds it is clear whether workers catch up.",
	},
	{
		"workers_started", flow, Warn, Behind,
		func(x *facts) bool { return x.late() && x.Flushing < trendWindow && x.LastUp+x.LastDown <= restarts },
		"Workers have just begun to flush; {waiting}.",
		"They were started, or reach Postgres again. In a few seconds it is clear whether they catch up.",
	},
	{
		"catching_up", flow, Warn, Behind, func(x *facts) bool { return x.late() && x.catchingUp(x.Late()) },
		"Catching up: {waiting}, about {left} to go.",
		"Rows reach Postgres faster than keys become dirty. There is nothing to do.",
	},
	{
		"falling_behind", flow, Bad, Behind, (*facts).late,
		"Falling behind: {oldest}, {waiting}.",
		safe + "Is Postgres slow (locks, disk, CPU)? If it is not, start more workers or raise AFTERWRITE_WORKER_CONCURRENCY.",
	},
	someWorkersCutOff(flow, func(x *facts) bool { return x.Down > 0 }),
	{
		codeKeepsUp, flow, Warn, KeepsUp, func(x *facts) bool { return x.Dirty == 0 && x.Dead > 0 },
		"{keeping}: Postgres has everything but {letters}.", "",
	},
	{
		codeKeepsUp, flow, Good, KeepsUp, func(x *facts) bool { return x.Dirty == 0 },
		"{keeping}: Postgres has everything.", "",
	},
	{
		codeKeepsUp, flow, Good, KeepsUp, func(*facts) bool { return true },
		"{keeping}: {oldest} behind.", "",
	},

	{
		"postgres_was_down", other, Warn, "", func(x *facts) bool {
			return x.Refusal != "" && !x.partial() && x.Up+x.LastUp == 0 && x.Down+x.LastDown > 0
		},
		"Postgres was down too, by the last heartbeats of the workers.", "Repair it as well: the keys wait for it next.",
	},
	{
		codeFailover, other, Warn, "", func(x *facts) bool { return x.Promoted > 0 && !failedOver(x) },
		"Redis failed over {promoted} ago.",
		"A replica has become the master. Writes that it did not have yet are lost, unless they were answered with durability=replica: " +
			"afterwrite_reconciled_keys_total counts those that Postgres had.",
	},
	{
		"redis_nearly_full", other, Bad, "", func(x *facts) bool { return x.Redis.Full() >= 0.9 && x.Redis.Policy == "noeviction" },
		"{redis} is {full} full.",
		"A full Redis refuses writes until clean entries leave. Raise maxmemory, or lower AFTERWRITE_CLEAN_TTL.",
	},
	{
		"redis_aof_fails", other, Bad, "", func(x *facts) bool { return x.Redis.AOFFailing },
		"{redis} cannot write its append-only file.",
		"If Redis stops, writes that are not in the file are lost. Check for a full disk, and read Redis's log.",
	},
	{
		"redis_writable_replica", other, Bad, "", func(x *facts) bool { return x.Redis.Role == "slave" && !x.Unheard() },
		"Redis is a replica that accepts writes.",
		"Writes to it are lost when it syncs with its master again. Set REDIS_URL to the master.",
	},
	requestsFail(Bad, func(x *facts) bool { return x.Failing() >= 1 }),
	requestsFail(Warn, func(x *facts) bool { return x.Failing() > 0 && x.Failing() < 1 }),
	{
		"redis_evicts_anything", other, Bad, "", func(x *facts) bool { return strings.HasPrefix(x.Redis.Policy, "allkeys-") },
		"{redis} may evict counters that Postgres does not have yet.",
		"Its maxmemory-policy is {policy}, which evicts any entry when memory runs out. Set maxmemory-policy noeviction.",
	},
	{
		"redis_without_aof", other, Warn, "", func(x *facts) bool { return x.Redis.Known && !x.Redis.AOF },
		"{redis} keeps no append-only file.",
		"If Redis stops, writes that Postgres does not have yet are lost. Set appendonly yes.",
	},
	{
		"mapping_broken", other, Bad, Behind, func(x *facts) bool { return len(x.BrokenMappings()) > 0 },
		"{broken} broken: {broken names}.",
		"Workers cannot write the table, because its schema or a permission is wrong; the page Mappings shows the error. " +
			"Its counters accept writes and wait in Redis; all others are flushed. `afterwrite mappings check` says what to change. " +
			"After that they are flushed within seconds.",
	},
	{
		"no_api", other, Bad, "", silent(RoleAPI),
		"No api is running.", "No client can write. Start `afterwrite api`.",
	},

	{
		"flushes_paused", other, Bad, Behind,
		func(x *facts) bool { return x.pausedFlush() != "" && (x.Alive[RoleWorker] == 0 || x.Up == 0) }, // else in flow
		"The queue {flush queue} is paused: flushes wait.",
		"Writes are safe in Redis. Until it is resumed, workers flush keys only when they are long overdue. {resume flush}",
	},
	{
		"retries_paused", other, Warn, "", func(x *facts) bool { return x.paused(tasks.QueueRetry) },
		"The queue " + tasks.QueueRetry + " is paused.",
		"Rows that Postgres refused are retried by sweeps only, and do not become dead letters. {resume retry}",
	},
	{
		"sweeps_paused", other, Warn, "", func(x *facts) bool { return x.paused(tasks.QueueSweep) },
		"The queue " + tasks.QueueSweep + " is paused.",
		"Keys whose task was lost are found later, by the workers themselves, and old tombstones stay. {resume sweep}",
	},

	someWorkersCutOff(other, func(x *facts) bool { return x.Up > 0 && x.Down > 0 && x.late() }), // else in flow
	{
		"dead_letters", other, Warn, "", func(x *facts) bool { return x.Dead > 0 },
		"{letters need} attention.",
		"Postgres refuses their rows; all other counters are flushed. See `afterwrite dead list`, or the page Dead letters. " +
			"Remove the cause, then redrive or discard them.",
	},
	{
		// Counters of a broken mapping are deferred too.
		"rows_locked", other, Warn, "", func(x *facts) bool { return x.Deferred > 0 && len(x.BrokenMappings()) == 0 },
		"Rows in Postgres are locked by another transaction, or slow: {deferred} deferred in the last {window} s.",
		"Their counters accept writes, and all others are flushed. They are retried every few seconds, " +
			"and never become dead letters. Find the old transaction in pg_stat_activity, and end it; a worker's log names a key.",
	},
	{
		"mappings_differ", other, Warn, "", differ(mappingsSetting),
		"Not all processes have the same mappings; different from {differing}.",
		"This is normal for a moment while processes are restarted. Set AFTERWRITE_MAPPINGS to the same file for every api, worker and " +
			"dashboard, and restart those that differ. Columns that a worker without the mapping did not write are brought up to date " +
			"by `afterwrite mappings backfill NAME`. An api without it lets a counter that only its column has start at 0; the first " +
			"flush adds the column's value.",
	},
	{
		"histories_differ", other, Warn, "", differ(historySetting),
		"Not all processes have the same AFTERWRITE_HISTORY; different from {differing histories}.",
		"This is normal for a moment while processes are restarted. Set it to the same keys for every api, worker and dashboard, and " +
			"restart those that differ. Operations that went through an api without them have no record; " +
			"`afterwrite verify --history` finds them.",
	},
	{
		"retries", other, Warn, "", func(x *facts) bool { return x.refused() > 0 && x.Unheard() },
		"{refused} for a retry.",
		"Postgres refused their rows, or another transaction has locked them: the reason is unknown at the moment. They are retried.",
	},
	rowsRefused("{refused} for a retry.", func(x *facts) bool { return x.Deferred == 0 }),
	rowsRefused("At least {refused} for a retry.", func(x *facts) bool { return x.Deferred > 0 }),
	{
		"no_scheduler", other, Warn, "", silent(RoleScheduler),
		"No scheduler is running.",
		"Keys whose task was lost are found later, by the workers themselves. Start `afterwrite scheduler`.",
	},
	sweepOverdue("The last sweep was sent {swept} ago.", func(x *facts) bool { return x.Swept >= 0 }),
	sweepOverdue("No sweep has been sent since the scheduler started, {scheduled} ago.", func(x *facts) bool { return x.Swept < 0 }),
}

func someWorkersCutOff(g group, when func(*facts) bool) rule {
	return rule{
		"workers_without_postgres", g, Warn, "", when,
		"{down} of {workers} workers cannot reach Postgres.",
		"The others do the work. Check the network of the workers marked below, and Postgres's max_connections.",
	}
}

func requestsFail(level Level, when func(*facts) bool) rule {
	return rule{
		"requests_fail", other, level, "", when,
		"Requests fail: {failing} a second.",
		"They are answered 503, 504 or 500. Requests answered 503 were not applied, except not_durable ones; " +
			"those answered 504 or 500 may have been applied. The reasons are in afterwrite_rejected_total of each api.",
	}
}

func rowsRefused(sentence string, when func(*facts) bool) rule {
	return rule{
		"retries", other, Warn, "", func(x *facts) bool { return x.refused() > 0 && !x.Unheard() && when(x) },
		sentence,
		"Postgres refused their rows. They are retried with growing pauses, and become dead letters in the end.",
	}
}

func sweepOverdue(sentence string, when func(*facts) bool) rule {
	return rule{
		"sweep_overdue", other, Warn, "", func(x *facts) bool { return x.Alive[RoleScheduler] > 0 && x.Unswept() && when(x) },
		sentence,
		"There should be one every {sweep interval}. The log of the scheduler has the reason.",
	}
}

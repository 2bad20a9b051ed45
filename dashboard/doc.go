// Package dashboard serves the web pages for operators: an overview that shows whether Postgres keeps up, the shards, dead letters,
// counters, the audit log, and under /asynq the pages of Asynq's queues (Asynqmon).
//
// Package auth checks every request before it reaches a page. Operators redrive and discard dead letters, flush counters and change tasks
// in Asynqmon. Each action is recorded in the audit log in Postgres before it runs. Changes from another site's page are rejected.
package dashboard

// Package dashboard serves the web pages for operators: an overview that says whether Postgres keeps up, the shards, dead letters,
// counters, the audit log, and under /asynq the pages of Asynq's queues (Asynqmon).
//
// Package auth decides who may look and who may act, before every page. Operators redrive and discard dead letters, flush counters
// and change tasks in Asynqmon. Each action gets an entry in the audit log in Postgres before it is done. Requests that would change
// something are rejected if they come from another site's page.
package dashboard

// Package dashboard is the web pages for operators: an index page that says how far Postgres is behind, and Asynqmon,
// the pages of Asynq's queues, under /asynq.
//
// Who may look and who may act is package access's: its gate stands before every page. Operators redrive and discard dead
// letters, flush counters and change tasks in Asynqmon; each action is noted in Postgres before it is done. Requests that
// change anything are refused when they come from another site's page.
package dashboard

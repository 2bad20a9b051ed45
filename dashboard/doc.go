// Package dashboard is the web pages for operators: an index page that says how far Postgres is behind, and Asynqmon,
// the pages of Asynq's queues, under /asynq.
//
// It has no login. Its default address is of this machine only, Asynqmon is read-only unless it is told otherwise, and
// requests that change anything are refused when they come from another site's page. Who lets others reach it puts a
// proxy with a login before it.
package dashboard

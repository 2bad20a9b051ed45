// Package command is the command line: it parses it, and wires every subcommand together from the other packages. All
// wiring is in here, so that a reader finds in one place what a process is made of.
//
// A long-running process starts in these steps (process.go): read the environment, see that its port is free, wait for
// Redis, run the doctor's checks, build its parts, serve. It stops when its context is done: HTTP first, then what works in
// the background, then the connections.
package command

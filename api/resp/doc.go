// Package resp serves counters over the Redis protocol, RESP2 and RESP3, so that a program that counts in Redis gets write-behind by
// changing its port. docs/redis-protocol.md says what each command does.
//
//	server := resp.New(service, resp.Options{Keys: keys, Lister: lists, Logger: log, Metrics: registry})
//	err := server.Serve(ctx, listener, nil)
//
// # The path of a command
//
//   - server: accepts connections, bounds them, and ends them at shutdown. limits.go has all bounds with their reasons.
//   - connection: reads what has arrived, carries out its commands, and writes their answers with one call.
//   - parse: finds the commands in the input. It continues where it stopped, and allocates nothing for what has not arrived.
//   - command: the table of commands, with what each needs: arguments, scope, state of the connection.
//   - change, read, multi, wait, scan, session, describe: the commands.
//   - batch: the operations of consecutive commands, which go to Counters as one request. Consecutive increments of one key are added
//     up before.
//   - failure: turns every error into one that Redis clients know.
//   - reply: appends replies of both versions of the protocol.
package resp

// Package local runs programs as child processes, and with them a private redis-server and a private postgres: `afterwrite up`
// uses it to need nothing but the two servers' programs, and the tests of every package use it (through localtest) to meet
// real servers.
//
//	r, err := local.StartRedis(ctx, local.RedisOptions{Dir: ".afterwrite/redis", Socket: true, AppendOnly: true})
//	p, err := local.StartPostgres(ctx, local.PostgresOptions{Dir: ".afterwrite/postgres", Fsync: true})
//	...                       // r.URL() and p.URL() are what go-redis and lib/pq take
//	p.Stop(ctx); r.Stop(ctx)  // the data stays: p.Start(ctx) goes on with it, at the same address
//
//	api, err := local.Program{Path: "bin/afterwrite", Args: []string{"api"}, Log: os.Stderr}.Start()
//	err = api.Await(ctx, local.Answers("http://127.0.0.1:8080/readyz"))
//	err = api.Stop(ctx, 10*time.Second)
//
// What it promises:
//
//   - Start returns when the server has answered a query, not before; an early end of the server is an error that holds
//     the last lines of its log.
//   - A child never outlives a killed parent on Linux (parent death signal), and a Ctrl-C in the terminal reaches only the
//     parent, which stops its children in the order it likes.
//   - One process per data folder: a second one gets ErrLocked. Nothing that this process did not start is ever signalled.
//   - Nobody else on the machine gets in: a socket in a folder of mode 0700, or 127.0.0.1 with a random password.
//
// It works on Linux and other unix systems, as root too (postgres refuses to run as root, so it runs as user `postgres`).
package local

// Package local runs programs as child processes, in particular a private redis-server and a private postgres. `afterwrite up` uses
// it, and so do the tests of all packages (through localtest).
//
//	r, err := local.StartRedis(ctx, local.RedisOptions{Dir: ".afterwrite/redis", Socket: true, AppendOnly: true})
//	p, err := local.StartPostgres(ctx, local.PostgresOptions{Dir: ".afterwrite/postgres", Fsync: true})
//	...                       // r.URL() is for go-redis, p.URL() for lib/pq
//	p.Stop(ctx); r.Stop(ctx)  // the data stays: p.Start(ctx) starts with the same data and address
//
//	api, err := local.Program{Path: "bin/afterwrite", Args: []string{"api"}, Log: os.Stderr}.Start()
//	err = api.Await(ctx, local.Answers("http://127.0.0.1:8080/readyz"))
//	err = api.Stop(ctx, 10*time.Second)
//
// Guarantees:
//
//   - Start returns after the server has answered a query. If the server ends before, the error contains the last lines of its log.
//   - On Linux, a child ends when its parent is killed (parent death signal). A Ctrl-C in the terminal reaches only the parent, which
//     stops its children in the right order.
//   - Only one process uses a data folder: a second one gets ErrLocked. Only processes that this process started are signalled.
//   - Other users of the machine have no access: the server is on a socket in a folder of mode 0700, or on 127.0.0.1 with a random
//     password.
//
// It works on Linux and other unix systems, also as root. postgres refuses to run as root, so it runs as user `postgres` then.
package local

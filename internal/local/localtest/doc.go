// Package localtest gives tests real servers: one Redis and one Postgres per test binary, started by the first test that asks for
// one, and servers of its own for a test that breaks things.
//
//	func TestMain(m *testing.M) { localtest.Main(m) }
//
//	func TestFlush(t *testing.T) {
//		rdb := localtest.Redis(t)                                   // an empty database of its own
//		db := sqlx.MustConnect("postgres", localtest.PostgresURL(t, migrate)) // a migrated database of its own
//		...
//		localtest.Eventually(t, 5*time.Second, func() (bool, string) { ... })
//	}
//
// Tests may run in parallel: a Redis database number and a Postgres database belong to one test at a time. What is the same in
// all Redis databases (FLUSHALL, CONFIG SET, the script cache, pub/sub, memory) is not for shared servers: use OwnRedis.
//
// Nothing is left behind: Main stops the servers and removes their data; after a panic or a timeout the kernel stops them
// (Linux), and a later run removes the data.
package localtest

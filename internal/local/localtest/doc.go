// Package localtest provides tests with real servers: one Redis and one Postgres per test binary, which the first test that needs them
// starts, and separate servers for tests that break them.
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
// Tests may run in parallel: each has a Redis database and a Postgres database of its own. Tests that affect all databases of a Redis
// (FLUSHALL, CONFIG SET, the script cache, pub/sub, memory) must use OwnRedis.
//
// Main stops the servers and removes their data. After a panic or a timeout the kernel stops the servers (Linux), and a later run
// removes the data.
package localtest

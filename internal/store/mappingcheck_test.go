package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// mapped returns a Store on a migrated database with the tables that the statements create, and the mappings of the file.
func mapped(t testing.TB, file string, statements ...string) *Store {
	t.Helper()
	all, err := mapping.Parse([]byte(file))
	require.NoError(t, err)
	address := localtest.PostgresURL(t, migrateTemplate)
	exec(t, open(t, address, Options{}), "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public', current_database()); END $$")
	s := open(t, address, Options{Mappings: all})
	for _, statement := range statements {
		exec(t, s, statement)
	}
	return s
}

// asRole returns a Store of the role, which it drops when the test ends.
func asRole(t testing.TB, s *Store, role string) *Store {
	t.Helper()
	t.Cleanup(func() {
		_, err := s.db.ExecContext(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		require.NoError(t, err)
	})
	return open(t, as(t, s.url, role), Options{Mappings: s.mappings})
}

// problemsOf returns the problems of all mappings, one string each.
func problemsOf(t testing.TB, s *Store) []string {
	t.Helper()
	problems, err := s.CheckMappings(t.Context())
	require.NoError(t, err)
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.String()
	}
	return lines
}

// oneMapping returns a file with one mapping, whose fields are changed by lines such as "set: other".
func oneMapping(lines ...string) string {
	fields := []string{
		"name: likes", `key: "post:{id:int}:likes"`, "table: public.posts", `where: {id: "{id}"}`, "set: likes", "missing: ignore",
	}
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ":")
		i := slices.IndexFunc(fields, func(field string) bool { return strings.HasPrefix(field, name+":") })
		if i < 0 {
			fields = append(fields, line)
			continue
		}
		fields[i] = line
	}
	return "mappings:\n  - " + strings.Join(fields, "\n    ") + "\n"
}

const createPosts = "CREATE TABLE public.posts (id bigint PRIMARY KEY, title text NOT NULL, likes integer NOT NULL DEFAULT 0)"

func TestStoreWithoutMappingsHasNoProblems(t *testing.T) {
	t.Parallel()
	require.Empty(t, problemsOf(t, setup(t)))
}

func TestMappingsThatFitHaveNoProblems(t *testing.T) {
	t.Parallel()
	s := mapped(t, `
mappings:
  - {name: posts, key: "post:{id:int}:likes", table: posts, where: {id: "{id}"}, set: likes}
  - {name: days, key: "views:{post:int}:{day:date}", table: stats.days, where: {post_id: "{post}", day: "{day}"}, set: views, missing: insert}
  - {name: odd, key: "odd:{a:uuid}:{b:text}", table: 'My "Schema.The Table', where: {A b: "{a}", "b\"": "{b}"}, set: "Ünï", missing: dead, deleted: null}
  - {name: more, key: "more:{a:uuid}", table: 'My "Schema.The Table', where: {A b: "{a}"}, set: n, missing: ignore}
  - {name: kinds, key: "kind:{n:int}", table: kinds, where: {n: "{n}", kind: "it's", mode: "on", live: "true", day: "2026-01-31"}, set: total, missing: insert}
  - {name: part, key: "part:{k:text}:{n:int}", table: stats.parts, where: {n: "{n}", k: "{k}"}, set: total, missing: insert}
`, createPosts, "CREATE SCHEMA stats",
		"CREATE TABLE stats.days (post_id int, day date, views smallint, id bigserial, PRIMARY KEY (day, post_id))",
		`CREATE SCHEMA "My ""Schema"`,
		`CREATE TABLE "My ""Schema"."The Table" ("A b" uuid UNIQUE, "b""" text, "Ünï" numeric, n numeric(12,2), UNIQUE ("A b", "b"""))`,
		"CREATE TYPE public.mode AS ENUM ('on', 'off')",
		`CREATE TABLE kinds (n smallint, kind varchar(4), mode public.mode, live bool, day date, total bigint,
			made timestamptz NOT NULL DEFAULT now(), number int NOT NULL GENERATED ALWAYS AS IDENTITY, double bigint GENERATED ALWAYS AS (2) STORED)`,
		"CREATE UNIQUE INDEX ON kinds (live, n, kind, mode, day) INCLUDE (total)",
		"CREATE TABLE stats.parts (k text, n int, total bigint, UNIQUE (n, k)) PARTITION BY HASH (n)",
		"CREATE TABLE stats.parts0 PARTITION OF stats.parts FOR VALUES WITH (MODULUS 1, REMAINDER 0)")

	require.Empty(t, problemsOf(t, s))
	exec(t, s, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = %L', current_database(), ''); END $$")
	require.Empty(t, problemsOf(t, open(t, s.url, Options{Mappings: s.mappings})), "with an empty search_path")
}

func TestMappingProblemsSayWhatToChange(t *testing.T) {
	t.Parallel()
	const inserts = "missing: insert"
	for name, test := range map[string]struct {
		file   string
		create string
		want   string // the end of the only problem
	}{
		"no schema": {
			oneMapping("table: blog.posts"), "",
			"the schema blog does not exist: create it, or correct table in the file",
		},
		"no table": {
			oneMapping(), "",
			"the table public.posts does not exist: create it, or correct table in the file",
		},
		"other case": {
			oneMapping("table: Posts"), createPosts,
			"the table public.Posts does not exist: create it, or correct table in the file",
		},
		"view": {
			oneMapping(), "CREATE VIEW posts AS SELECT 1 AS id, 2 AS likes",
			"public.posts is a view: set table to an ordinary or partitioned table",
		},
		"foreign table": {
			oneMapping(), "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE posts (id int, likes int) SERVER s",
			"public.posts is a foreign table: set table to an ordinary or partitioned table",
		},
		"own table": {
			oneMapping("table: afterwrite.counters", `key: "x:{id:text}"`, `where: {key: "{id}"}`, "set: value"), "",
			"afterwrite.counters belongs to afterwrite: set table to a table of your own",
		},
		"inherited": {
			oneMapping(), createPosts + "; CREATE TABLE old_posts () INHERITS (posts)",
			"other tables inherit from public.posts, and its unique indexes do not cover their rows: " +
				"set table to a table without children, or to a partitioned table",
		},
		"no columns": {
			oneMapping("set: Likes", `where: {ID: "{id}"}`), createPosts,
			"the table public.posts has no column ID, Likes: correct where and set in the file; names are case-sensitive",
		},
		"dropped column": {
			oneMapping(), createPosts + "; ALTER TABLE posts DROP likes",
			"the table public.posts has no column likes: correct where and set in the file; names are case-sensitive",
		},
		"system column": {
			oneMapping(`where: {id: "{id}", tableoid: "1"}`), createPosts,
			"the table public.posts has no column tableoid: correct where and set in the file; names are case-sensitive",
		},
		"type of set": {
			oneMapping("set: title"), createPosts,
			"the column title has the type text: set must be a column of type smallint, integer, bigint or numeric",
		},
		"rounded numeric": {
			oneMapping(), "CREATE TABLE posts (id int PRIMARY KEY, likes numeric(5,-2))",
			"the column likes has the type numeric(5,-2), which rounds whole numbers: use a scale of 0 or more",
		},
		"generated": {
			oneMapping(), "CREATE TABLE posts (id int PRIMARY KEY, likes bigint GENERATED ALWAYS AS (id * 2) STORED)",
			"the column likes is generated, so it cannot be written: set must be an ordinary column",
		},
		"identity": {
			oneMapping(), "CREATE TABLE posts (id int PRIMARY KEY, likes bigint GENERATED ALWAYS AS IDENTITY)",
			"the column likes is an identity (GENERATED ALWAYS), so it cannot be written: set must be an ordinary column",
		},
		"deleted null": {
			oneMapping("deleted: null"), createPosts,
			"the column likes is NOT NULL, so a delete cannot set NULL: remove deleted: null, or drop NOT NULL",
		},
		"type of where": {
			oneMapping(`where: {id: "{id}"}`), "CREATE TABLE posts (id text PRIMARY KEY, likes bigint)",
			"the column id has the type text, and its placeholder is {id:int}: use a column of type smallint, integer or bigint, or another type of placeholder",
		},
		"domain": {
			oneMapping(), "CREATE DOMAIN id AS bigint; CREATE TABLE posts (id id PRIMARY KEY, likes bigint)",
			"the column id has the type id, and its placeholder is {id:int}: use a column of type smallint, integer or bigint, or another type of placeholder",
		},
		"collation": {
			oneMapping(`key: "post:{id:text}:likes"`), "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false); " +
				"CREATE TABLE posts (id text COLLATE loose PRIMARY KEY, likes bigint)",
			"the collation of the column id makes different texts equal: use a column with a deterministic collation",
		},
		"constant that is no value": {
			oneMapping(`where: {id: "{id}", kind: "post"}`), "CREATE TABLE posts (id int PRIMARY KEY, kind int, likes bigint)",
			`the constant "post" is not a value of the type integer of the column kind (invalid input syntax for type integer: "post"): correct the constant`,
		},
		"constant of another text": {
			oneMapping(`where: {id: "{id}", kind: "007"}`), "CREATE TABLE posts (id int PRIMARY KEY, kind int, likes bigint)",
			`the constant "007" is "7" in the type integer of the column kind: write it as "7", or change the type`,
		},
		"constant that is too long": {
			oneMapping(`where: {id: "{id}", kind: "post"}`), "CREATE TABLE posts (id int PRIMARY KEY, kind varchar(3), likes bigint)",
			`the constant "post" is "pos" in the type character varying(3) of the column kind: write it as "pos", or change the type`,
		},
		"constant that is no label": {
			oneMapping(`where: {id: "{id}", kind: "x"}`), "CREATE TYPE kind AS ENUM ('y'); CREATE TABLE posts (id int PRIMARY KEY, kind kind, likes bigint)",
			`the constant "x" is not a value of the type kind of the column kind (invalid input value for enum kind: "x"): correct the constant`,
		},
		"constant of json": {
			oneMapping(`where: {id: "{id}", kind: "1"}`), "CREATE TABLE posts (id int PRIMARY KEY, kind json, likes bigint)",
			"the column kind has the type json, which cannot be compared with a constant: use a column of type smallint, integer, bigint, text, varchar, boolean, uuid, date or an enum",
		},
		"insert without a title": {
			oneMapping(inserts), createPosts,
			"missing: insert cannot insert rows, because columns are NOT NULL and have no default: title: give them defaults, or use missing: ignore or missing: dead",
		},
		"insert into an identity": {
			oneMapping(inserts), "CREATE TABLE posts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, likes bigint)",
			"missing: insert cannot insert rows, because Postgres generates the column id: use missing: ignore or missing: dead",
		},
		"insert with a smaller index": {
			oneMapping(inserts, `where: {id: "{id}", kind: "1"}`), "CREATE TABLE posts (id bigint PRIMARY KEY, kind int, likes bigint)",
			"missing: insert needs a unique index on exactly the columns of where (indexes that are partial, deferrable, invalid or on expressions do not count): " +
				"run CREATE UNIQUE INDEX ON public.posts (id, kind)",
		},
		"no index": {
			oneMapping(), "CREATE TABLE posts (id bigint, likes bigint)", noIndex,
		},
		"partial index": {
			oneMapping(), "CREATE TABLE posts (id bigint, likes bigint); CREATE UNIQUE INDEX ON posts (id) WHERE likes > 0", noIndex,
		},
		"index on an expression": {
			oneMapping(), "CREATE TABLE posts (id bigint, likes bigint); CREATE UNIQUE INDEX ON posts (id, abs(id))", noIndex,
		},
		"deferrable index": {
			oneMapping(), "CREATE TABLE posts (id bigint UNIQUE DEFERRABLE, likes bigint)", noIndex,
		},
		"wider index": {
			oneMapping(), "CREATE TABLE posts (id bigint, kind int, likes bigint, UNIQUE (id, kind))", noIndex,
		},
		"index that includes the column": {
			oneMapping(), "CREATE TABLE posts (id bigint, kind int, likes bigint); CREATE UNIQUE INDEX ON posts (kind) INCLUDE (id)", noIndex,
		},
		"index of partitions only": {
			oneMapping(), "CREATE TABLE posts (id bigint, likes bigint) PARTITION BY HASH (id); " +
				"CREATE TABLE posts0 PARTITION OF posts FOR VALUES WITH (MODULUS 1, REMAINDER 0); CREATE UNIQUE INDEX ON posts0 (id); " +
				"CREATE UNIQUE INDEX ON ONLY posts (id)", noIndex,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mapped(t, test.file, test.create)
			require.Equal(t, []string{"mapping likes: " + test.want}, problemsOf(t, s))
			require.True(t, s.Up(), "a wrong mapping is no outage")
		})
	}
}

const noIndex = "no unique index has only columns of where, so a key could have several rows " +
	"(indexes that are partial, deferrable, invalid or on expressions do not count): run CREATE UNIQUE INDEX ON public.posts (id)"

func TestAllProblemsOfAllMappingsAreFound(t *testing.T) {
	t.Parallel()
	s := mapped(t, `
mappings:
  - {name: a, key: "a:{id:uuid}", table: posts, where: {id: "{id}"}, set: title}
  - {name: b, key: "b:{id:int}", table: posts, where: {id: "{id}"}, set: likes}
  - {name: c, key: "c:{id:int}", table: nothing, where: {id: "{id}"}, set: likes}
`, createPosts)

	problems, err := s.CheckMappings(t.Context())

	require.NoError(t, err)
	var names []string
	for _, p := range problems {
		names = append(names, p.Mapping)
	}
	require.Equal(t, []string{"a", "a", "c"}, names)
}

func TestGrantsForMappingsAreSufficient(t *testing.T) {
	t.Parallel()
	s := mapped(t, `
mappings:
  - {name: posts, key: "post:{id:int}:likes", table: blog.posts, where: {id: "{id}"}, set: Likes}
  - {name: days, key: "views:{post:int}:{day:date}", table: blog.days, where: {post: "{post}", day: "{day}"}, set: views, missing: insert}
`, "CREATE SCHEMA blog", `CREATE TABLE blog.posts (id bigint PRIMARY KEY, "Likes" bigint, secret text)`,
		"CREATE TABLE blog.days (number bigserial, post int, day date, views bigint, secret text, UNIQUE (post, day)) PARTITION BY LIST (post)",
		"CREATE TABLE blog.days_all PARTITION OF blog.days DEFAULT",
		"CREATE ROLE mapped_runtime LOGIN PASSWORD 'x'")
	poor := asRole(t, s, "mapped_runtime")

	problems, err := poor.CheckMappings(t.Context())
	require.NoError(t, err)
	require.Equal(t, []MappingProblem{
		{
			"posts", "the role mapped_runtime lacks rights on blog.posts",
			`run as their owner: GRANT USAGE ON SCHEMA blog TO mapped_runtime; GRANT SELECT (id, "Likes"), UPDATE ("Likes") ON blog.posts TO mapped_runtime`,
		},
		{
			"days", "the role mapped_runtime lacks rights on blog.days",
			"run as their owner: GRANT USAGE ON SCHEMA blog TO mapped_runtime; " +
				"GRANT SELECT (day, post, views), UPDATE (views), INSERT (day, post, views) ON blog.days TO mapped_runtime; " +
				"GRANT USAGE ON SEQUENCE blog.days_number_seq TO mapped_runtime",
		},
	}, problems)
	for _, p := range problems {
		_, grants, _ := strings.Cut(p.Fix, ": ")
		exec(t, s, grants)
	}

	require.Empty(t, problemsOf(t, poor))
	exec(t, s, "INSERT INTO blog.posts VALUES (1, 0)")
	exec(t, poor, `UPDATE blog.posts SET "Likes" = 5 WHERE id = 1`)
	require.Equal(t, 5, get[int](t, poor, `SELECT "Likes" FROM blog.posts WHERE id = 1`))
	exec(t, poor, "INSERT INTO blog.days (post, day, views) VALUES (1, '2026-01-31', 7)")
	exec(t, poor, "UPDATE blog.days SET views = 8 WHERE post = 1 AND day = '2026-01-31'")
	_, err = poor.db.ExecContext(t.Context(), "SELECT secret FROM blog.days")
	require.Equal(t, Operator, Classify(err), "the grants are only for the columns of the mapping")
}

func TestGrantsNameOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := mapped(t, oneMapping(), createPosts, "CREATE ROLE mapped_reader LOGIN PASSWORD 'x'", "GRANT SELECT ON posts TO mapped_reader")
	poor := asRole(t, s, "mapped_reader")

	require.Equal(t, []string{
		"mapping likes: the role mapped_reader lacks rights on public.posts: " +
			"run as their owner: GRANT UPDATE (likes) ON public.posts TO mapped_reader",
	}, problemsOf(t, poor))
}

func TestCheckOfMappingsDoesNotWaitForLocks(t *testing.T) {
	t.Parallel()
	s := mapped(t, oneMapping(), createPosts)
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback()) }()
	_, err = tx.ExecContext(t.Context(), "LOCK TABLE posts IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)

	require.Empty(t, problemsOf(t, s))
}

func TestCheckOfMappingsReturnsTheErrorOfAnOutage(t *testing.T) {
	t.Parallel()
	all, err := mapping.Parse([]byte(oneMapping()))
	require.NoError(t, err)
	s := open(t, "postgres://me@127.0.0.1:1/x", Options{Mappings: all})

	_, err = s.CheckMappings(t.Context())

	require.Equal(t, Outage, Classify(err), fmt.Sprint(err))
}

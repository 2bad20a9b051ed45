-- +goose Up

-- Days of operations are dropped in bounded steps, and the functions do not depend on what other roles have created in the schema.

DROP FUNCTION operations_create(date), operations_drop(date), operations_check();

-- The functions below run with the rights of their owner, because a worker's role need not own the tables. search_path is the schema of the
-- installation, in which other roles may be allowed to create functions: all names are qualified, so that none of those is called instead.

-- Fails unless the role that logged in may insert operations: every role may call a new function.
-- +goose StatementBegin
CREATE FUNCTION operations_check(place text) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT pg_catalog.has_table_privilege(session_user, pg_catalog.format('%I.operations', place), 'INSERT') THEN
        RAISE insufficient_privilege USING
            MESSAGE = pg_catalog.format('permission denied for table operations: role %I may not insert', session_user);
    END IF;
END $$;
-- +goose StatementEnd

-- Creates the partition of a day, if it is missing. A new table is attached: CREATE TABLE ... PARTITION OF would lock operations against
-- all flushes.
-- +goose StatementBegin
CREATE FUNCTION operations_create(for_day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    place name := pg_catalog.current_schema();
    name  text := 'operations_' OPERATOR(pg_catalog.||) pg_catalog.to_char(for_day::timestamp, 'YYYYMMDD'::text);
BEGIN
    EXECUTE pg_catalog.format('SELECT %1$I.operations_check(%1$L)', place);
    PERFORM pg_catalog.pg_advisory_xact_lock(x'61667465'::int, for_day OPERATOR(pg_catalog.-) date '2000-01-01');
    IF pg_catalog.to_regclass(pg_catalog.format('%I.%I', place, name)) IS NULL THEN
        EXECUTE pg_catalog.format('CREATE TABLE %1$I.%2$I (LIKE %1$I.operations INCLUDING ALL)', place, name);
        EXECUTE pg_catalog.format('ALTER TABLE %1$I.operations ATTACH PARTITION %1$I.%2$I FOR VALUES FROM (%3$L) TO (%4$L)',
            place, name, for_day, for_day OPERATOR(pg_catalog.+) 1);
    END IF;
END $$;
-- +goose StatementEnd

-- Drops the partition of a day that has ended, and keeps the last state of each of its keys in operations_checkpoints. A day may have
-- millions of keys, so one call keeps those of 10,000 keys that are greater than after, and returns the last of them. The call that finds
-- no key drops the partition, and returns NULL. All calls for a day belong in one transaction. Until its end the partition takes no
-- records: one that came after its key was kept would be lost.
--
-- Both subqueries are single descents of the primary key, so a call does not depend on the number of records.
-- +goose StatementBegin
CREATE FUNCTION operations_drop(for_day date, after text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    place name := pg_catalog.current_schema();
    name  text := 'operations_' OPERATOR(pg_catalog.||) pg_catalog.to_char(for_day::timestamp, 'YYYYMMDD'::text);
    last  text;
BEGIN
    EXECUTE pg_catalog.format('SELECT %1$I.operations_check(%1$L)', place);
    PERFORM pg_catalog.pg_advisory_xact_lock(x'61667465'::int, for_day OPERATOR(pg_catalog.-) date '2000-01-01');
    IF for_day OPERATOR(pg_catalog.>=) (pg_catalog.now() AT TIME ZONE 'UTC')::date
       OR pg_catalog.to_regclass(pg_catalog.format('%I.%I', place, name)) IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE pg_catalog.format('LOCK TABLE %I.%I IN SHARE MODE', place, name);
    EXECUTE pg_catalog.format('
        WITH RECURSIVE found (key) AS (
            SELECT (SELECT key FROM %1$I.%2$I WHERE key > $1 ORDER BY key LIMIT 1)
            UNION ALL
            SELECT (SELECT p.key FROM %1$I.%2$I p WHERE p.key > found.key ORDER BY p.key LIMIT 1) FROM found WHERE found.key IS NOT NULL
        ),
        keys AS MATERIALIZED (SELECT key FROM found WHERE key IS NOT NULL LIMIT 10000),
        kept AS (
            INSERT INTO %1$I.operations_checkpoints AS c (key, version, at, value, deleted)
            SELECT keys.key, last.version, last.at, last.value, last.amount IS NULL
            FROM keys, LATERAL (
                SELECT version, at, value, amount FROM %1$I.%2$I p WHERE p.key = keys.key ORDER BY version DESC, lineage DESC LIMIT 1
            ) last
            ON CONFLICT (key) DO UPDATE
            SET version = EXCLUDED.version, at = EXCLUDED.at, value = EXCLUDED.value, deleted = EXCLUDED.deleted
            WHERE c.version <= EXCLUDED.version
        )
        SELECT pg_catalog.max(key) FROM keys', place, name) INTO last USING coalesce(after, '');
    IF last IS NULL THEN
        EXECUTE pg_catalog.format('DROP TABLE %I.%I', place, name);
    END IF;
    RETURN last;
END $$;
-- +goose StatementEnd

-- +goose Down

DROP FUNCTION operations_create(date), operations_drop(date, text), operations_check(text);

-- Fails unless the role that logged in may insert operations: every role may call a new function, and these run with their owner's rights.
-- +goose StatementBegin
CREATE FUNCTION operations_check() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT has_table_privilege(session_user, format('%I.operations', current_schema()), 'INSERT') THEN
        RAISE insufficient_privilege USING MESSAGE = format('permission denied for table operations: role %I may not insert', session_user);
    END IF;
END $$;
-- +goose StatementEnd

-- Creates the partition of a day, if it is missing. It runs with the rights of its owner, because a worker's role need not own the tables.
-- A new table is attached: CREATE TABLE ... PARTITION OF would lock operations against all flushes. search_path is the schema.
-- +goose StatementBegin
CREATE FUNCTION operations_create(for_day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    place text := current_schema();
    name  text := 'operations_' || to_char(for_day, 'YYYYMMDD');
BEGIN
    PERFORM operations_check();
    PERFORM pg_advisory_xact_lock(x'616674656f70'::bigint);
    IF to_regclass(format('%I.%I', place, name)) IS NULL THEN
        EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.operations INCLUDING ALL)', place, name);
        EXECUTE format('ALTER TABLE %1$I.operations ATTACH PARTITION %1$I.%2$I FOR VALUES FROM (%3$L) TO (%4$L)',
            place, name, for_day, for_day + 1);
    END IF;
END $$;
-- +goose StatementEnd

-- Drops the partition of a day that has ended, and keeps the last state of each of its keys. It is the last by time: the versions of a
-- counter begin again if it was deleted, its tombstone was purged, and it was written anew.
-- +goose StatementBegin
CREATE FUNCTION operations_drop(for_day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    place text := current_schema();
    name  text := 'operations_' || to_char(for_day, 'YYYYMMDD');
BEGIN
    PERFORM operations_check();
    PERFORM pg_advisory_xact_lock(x'616674656f70'::bigint);
    IF for_day < (now() AT TIME ZONE 'UTC')::date AND to_regclass(format('%I.%I', place, name)) IS NOT NULL THEN
        EXECUTE format('INSERT INTO %1$I.operations_checkpoints AS c (key, version, at, value, deleted)
            SELECT DISTINCT ON (key) key, version, at, value, amount IS NULL FROM %1$I.%2$I ORDER BY key, at DESC, version DESC
            ON CONFLICT (key) DO UPDATE
            SET version = EXCLUDED.version, at = EXCLUDED.at, value = EXCLUDED.value, deleted = EXCLUDED.deleted
            WHERE c.at <= EXCLUDED.at', place, name);
        EXECUTE format('DROP TABLE %I.%I', place, name);
    END IF;
END $$;
-- +goose StatementEnd

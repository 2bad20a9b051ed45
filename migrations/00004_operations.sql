-- +goose Up

-- The history of the counters that have one (AFTERWRITE_HISTORY): one row for each operation. The flush inserts a counter's operations in
-- the transaction that writes its state, so a counter's row and its history never disagree. version orders the operations of a key.
--
-- One partition for each day, in UTC. Workers create them, and drop those that are older than AFTERWRITE_HISTORY_RETENTION, with the
-- functions below. day is a column because a primary key must have the partition's key, and a generated column cannot be one.
CREATE TABLE operations (
    key       text COLLATE "C" NOT NULL,
    version   bigint           NOT NULL, -- of the counter, after the operation
    lineage   bigint           NOT NULL, -- as in counters
    day       date             NOT NULL, -- of at
    at        timestamptz      NOT NULL, -- Redis's clock
    operation text             NOT NULL, -- increment, set, delete, or discard: an operator set the counter back
    amount    bigint,                    -- NULL: the counter does not exist afterwards
    value     bigint,                    -- of the counter, after the operation; NULL: unknown
    caller    text,                      -- the name of the API key
    request   text,                      -- the ID of the request
    note      text,

    CONSTRAINT operations_pkey PRIMARY KEY (key, version, lineage, day)
) PARTITION BY RANGE (day);

-- The state of each key before the oldest partition that is left.
CREATE TABLE operations_checkpoints (
    key     text COLLATE "C" NOT NULL,
    version bigint           NOT NULL,
    at      timestamptz      NOT NULL,
    value   bigint,                    -- NULL: unknown
    deleted boolean          NOT NULL,

    CONSTRAINT operations_checkpoints_pkey PRIMARY KEY (key)
);

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

-- +goose Down

DROP FUNCTION operations_create, operations_drop, operations_check;
DROP TABLE operations;
DROP TABLE operations_checkpoints;

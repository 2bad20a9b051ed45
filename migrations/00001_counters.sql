-- +goose Up

-- One row per counter that was ever written. Only the flush writes rows. It replaces a row only by a newer state (see 00002).
--
-- Placing the 8-byte columns before the key, as is often advised, would save nothing: a row is padded to a multiple of 8 bytes, so
-- the padding after the key would only move to the end of the row.
CREATE TABLE counters (
    -- 1 to 255 bytes of UTF-8, checked by the parser of keys. Collation "C" compares bytes. That is fast and the same on every
    -- system, so an upgrade of the operating system cannot corrupt the index. The flush sorts its rows in this order, so that two
    -- flushes cannot deadlock.
    key        text COLLATE "C" NOT NULL,
    value      bigint           NOT NULL,
    -- The number of accepted writes. It never decreases.
    version    bigint           NOT NULL,
    -- Not NULL in a tombstone, the row of a deleted counter. It is kept so that a late flush cannot restore the counter.
    deleted_at timestamptz,
    updated_at timestamptz      NOT NULL,

    CONSTRAINT counters_pkey PRIMARY KEY (key),
    CONSTRAINT counters_version_not_negative CHECK (version >= 0)
) WITH (
    -- An update is HOT (no new index entries, and no vacuum for the old row version) if the new row version fits into the same
    -- page. Most rows of a page were inserted by one flush, so they are in one shard and are often updated by one flush. Then each
    -- row of the page needs space for a second version. Measured with 1,000 rows, updated 60 times, all in one statement:
    --     fillfactor 100   57 % HOT, the table grows from 12 to 304 pages
    --     fillfactor  90   91 % HOT, from 13 to 81
    --     fillfactor  70   98 % HOT, from 17 to 37
    --     fillfactor  50  100 % HOT, from 23 to 25
    -- If most counters are cold, the table is 1.8 times as large as with 90. ALTER TABLE can change it.
    fillfactor = 50,
    -- Vacuum removes tombstones and old versions of the few updates that were not HOT. With the default of 20 %, millions of them
    -- would accumulate in a large table.
    autovacuum_vacuum_scale_factor = 0.05,
    -- All queries use the primary key, so statistics change no plan, but every update counts towards the next analyze. With the
    -- default of 10 %, a small hot table would be analyzed every minute.
    autovacuum_analyze_scale_factor = 1
);

-- For the purge of old tombstones. It has no entries for other rows, and an update that leaves deleted_at NULL changes no indexed
-- column, so it stays HOT.
CREATE INDEX counters_deleted_at_idx ON counters (deleted_at) WHERE deleted_at IS NOT NULL;

-- +goose Down

DROP TABLE counters;

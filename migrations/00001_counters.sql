-- +goose Up

-- One row per counter that was ever written. The only writer is the flush, which replaces a row by a newer state of it and
-- never goes back (how it tells: 00002).
--
-- Column order: what identifies the row, what it says, what it is kept for. Putting the 8-byte columns before the key, as
-- is often advised, would gain nothing: a row is padded to a multiple of 8 bytes as a whole, so the padding behind the
-- key only moves to the end of the row.
CREATE TABLE counters (
    -- 1 to 255 bytes of UTF-8, checked where keys are parsed. Collation "C" compares bytes: cheaper than any language's
    -- rules, the same on every system (so no operating system upgrade can corrupt the index), and the order in which the
    -- flush sorts its rows, which is what keeps two flushes from a deadlock.
    key        text COLLATE "C" NOT NULL,
    value      bigint           NOT NULL,
    -- How many operations the key has seen. It only grows.
    version    bigint           NOT NULL,
    -- Set: the counter is deleted and the row is a tombstone, kept so that a late flush cannot bring the counter back.
    deleted_at timestamptz,
    updated_at timestamptz      NOT NULL,

    CONSTRAINT counters_pkey PRIMARY KEY (key),
    CONSTRAINT counters_version_not_negative CHECK (version >= 0)
) WITH (
    -- Updates are HOT (no new index entry, and the old version is cleared away without a vacuum) as long as the new
    -- version of a row fits into the old one's page. The rows of a page were mostly inserted by one flush, so they belong
    -- to one shard and are often updated by one flush as well: then every row of the page needs room for a second
    -- version. Measured with 1,000 rows, each updated 60 times, all 1,000 in one statement:
    --     fillfactor 100   57 % HOT, the table grows from 12 to 304 pages
    --     fillfactor  90   91 % HOT, from 13 to 81
    --     fillfactor  70   98 % HOT, from 17 to 37
    --     fillfactor  50  100 % HOT, from 23 to 25
    -- The price is a table 1.8 times as large as with 90 where most counters are cold; ALTER TABLE can change it.
    fillfactor = 50,
    -- Little and often: what vacuum finds here is tombstones and the few updates that were not HOT, and the default of 20 %
    -- lets millions of them gather on a large table first.
    autovacuum_vacuum_scale_factor = 0.05,
    -- Every query goes by the primary key, so statistics change no plan, while every update counts towards the next
    -- analyze: with the default of 10 % a small hot table would be analyzed each minute for nothing.
    autovacuum_analyze_scale_factor = 1
);

-- Finds the tombstones that are old enough to purge without reading the live rows. It holds nothing of a live row, and
-- an update that leaves deleted_at NULL changes no indexed column, so it does not stop HOT.
CREATE INDEX counters_deleted_at_idx ON counters (deleted_at) WHERE deleted_at IS NOT NULL;

-- +goose Down

DROP TABLE counters;

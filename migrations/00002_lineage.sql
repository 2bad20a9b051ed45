-- +goose Up

-- A Redis that restarts without its last writes continues from an older version, and may reach or pass the version of the row. So the
-- version alone does not show whether the new state includes the row's writes. lineage identifies the unsynced writes of which the state
-- consists, and base is the version before them. A row of another lineage is replaced only if its version is at most base. If it is
-- higher, Redis has lost writes that the row has, and the entry is repaired first (see internal/cache/reconcile.lua).
--
-- The columns need 16 bytes per row. Adding columns with a constant default does not rewrite the table (since Postgres 11).
ALTER TABLE counters
    ADD COLUMN lineage bigint NOT NULL DEFAULT 0, -- 0: unknown, as in all older rows
    ADD COLUMN base    bigint NOT NULL DEFAULT 0;

-- +goose Down

ALTER TABLE counters DROP COLUMN lineage, DROP COLUMN base;

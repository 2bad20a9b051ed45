-- +goose Up

-- A Redis that comes back without its last moments goes on counting from an older version, and may reach, or pass, the version
-- that is here already. So the version alone does not say whether a row's history is a part of the state that is to replace
-- it. These two do: lineage names the run of writes in Redis that the state is made of, base is the version which that run
-- began from. A row of another lineage is replaced only where its version is not past the base; where it is, Redis has lost
-- something that is here, and is mended first (see internal/cache/reconcile.lua).
--
-- They cost 16 bytes a row. Adding columns with a constant default does not rewrite the table (Postgres 11).
ALTER TABLE counters
    ADD COLUMN lineage bigint NOT NULL DEFAULT 0, -- 0: not known, as for every row from before
    ADD COLUMN base    bigint NOT NULL DEFAULT 0;

-- +goose Down

ALTER TABLE counters DROP COLUMN lineage, DROP COLUMN base;

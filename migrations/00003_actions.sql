-- +goose Up

-- The audit log of the dashboard: one row per action of an operator. The row is written before the action, so no action lacks a row.
-- Each insert deletes old rows (see internal/store/actions.go).
CREATE TABLE counters_actions (
    id      bigint      GENERATED ALWAYS AS IDENTITY,
    at      timestamptz NOT NULL DEFAULT now(),
    who     text        NOT NULL,
    what    text        NOT NULL,
    -- The keys, or a path of Asynqmon; cut if it is long.
    target  text        NOT NULL,
    -- NULL until the action has ended, and if its process died meanwhile.
    outcome text,
    failed  boolean     NOT NULL DEFAULT false,

    CONSTRAINT counters_actions_pkey PRIMARY KEY (id)
);

-- +goose Down

DROP TABLE counters_actions;

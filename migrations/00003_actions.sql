-- +goose Up

-- What operators did in the dashboard: one row for each, written before it is done, so that nothing is done without one. It is
-- kept small by whoever writes to it (see internal/store/actions.go).
CREATE TABLE counters_actions (
    id      bigint      GENERATED ALWAYS AS IDENTITY,
    at      timestamptz NOT NULL DEFAULT now(),
    who     text        NOT NULL,
    what    text        NOT NULL,
    -- What it was done to: keys, or a path of Asynqmon's. As much of it as is worth reading.
    target  text        NOT NULL,
    -- NULL until it has ended: a process that died in between leaves it so.
    outcome text,
    failed  boolean     NOT NULL DEFAULT false,

    CONSTRAINT counters_actions_pkey PRIMARY KEY (id)
);

-- +goose Down

DROP TABLE counters_actions;

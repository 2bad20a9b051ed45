-- The tables of the example application, with 100 posts that have likes already.
CREATE TABLE posts (
    id    bigint  PRIMARY KEY,
    title text    NOT NULL,
    likes integer NOT NULL DEFAULT 0
);

CREATE TABLE daily_views (
    post_id bigint NOT NULL REFERENCES posts,
    day     date   NOT NULL,
    views   bigint NOT NULL,
    PRIMARY KEY (post_id, day)
);

INSERT INTO posts SELECT n, 'Post ' || n, 10 * n FROM generate_series(1, 100) n;

-- Each write reads its row FOR SHARE and keeps it locked until the write has ended.
CREATE TABLE switches (
    name    text    PRIMARY KEY,
    enabled boolean NOT NULL
);

INSERT INTO switches VALUES ('afterwrite', false);

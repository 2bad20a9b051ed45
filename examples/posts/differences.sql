-- Prints an operation for each counter that differs from its column: it sets the counter to the column's value.
SELECT json_build_object('op', 'set', 'key', c.key, 'value', p.likes)
FROM posts p JOIN afterwrite.counters c ON c.key = 'post:' || p.id || ':likes'
WHERE c.value <> p.likes OR c.deleted_at IS NOT NULL
UNION ALL
SELECT json_build_object('op', 'set', 'key', c.key, 'value', v.views)
FROM daily_views v JOIN afterwrite.counters c ON c.key = 'views:' || v.post_id || ':' || to_char(v.day, 'YYYY-MM-DD')
WHERE c.value <> v.views OR c.deleted_at IS NOT NULL;

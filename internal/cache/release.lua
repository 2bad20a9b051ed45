-- release.lua ends a drain before its time is over.
--
-- KEYS[1]  {aw:07}:drain
-- ARGV[1]  who drains
--
-- Reply: 1, or 0 when it was somebody else's.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])

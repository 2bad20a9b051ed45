-- release.lua ends the lease of a drain early.
--
-- KEYS[1]  {aw:07}:drain
-- ARGV[1]  the owner
--
-- Reply: 1, or 0 if another owner has the lease.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])

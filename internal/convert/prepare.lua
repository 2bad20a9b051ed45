-- prepare.lua gives a new shard its first epoch, and the token of the conversion.
--
-- KEYS[1]  {aw:07}:meta
-- KEYS[2]  {aw:07}:dead
-- KEYS[3]  {aw:07}:conversion
-- ARGV[1]  the token
--
-- Reply: the ID of the open epoch.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
free(KEYS[2])
save(s)
call('SET', KEYS[3], ARGV[1])
return s.open

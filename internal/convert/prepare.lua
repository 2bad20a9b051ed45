-- prepare.lua gives a new shard its first epoch, and the token of the conversion.
--
-- KEYS[1]  {aw:07}:meta
-- ARGV[1]  the token
--
-- Reply: the ID of the open epoch.

local s = enter(KEYS[1])
call('HSET', KEYS[1], 'conversion', ARGV[1])
return s.open

-- Adds a sample to the history, unless it has one of the same second already: another dashboard's.
--
-- KEYS[1]  aw:history, the newest first
-- ARGV     1 the second, by Redis's clock; 2 the sample; 3 how many are kept
-- Reply    1 if it was added, else 0

local second = tonumber(ARGV[1])
local newest = redis.call('LINDEX', KEYS[1], 0)
local last = newest and tonumber(string.match(newest, '^%d+'))
-- A history that is ahead by more than a minute is from before the clock was set back: it must not stop the new one.
if last and last >= second and last - second < 60 then
  return 0
end
-- As in beat.lua: a Redis that is full takes this write, and then the next, which needs no more than this one freed.
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[3]) - 2)
redis.call('LPUSH', KEYS[1], ARGV[1] .. ' ' .. ARGV[2])
return 1

-- Adds a sample to the history, unless another process has added one for the same second.
--
-- KEYS[1]  aw:history, newest first
-- ARGV     1 second by Redis's clock; 2 sample as JSON; 3 maximum number of samples
-- Reply    1 if it was added, else 0

local second = tonumber(ARGV[1])
local newest = redis.call('LINDEX', KEYS[1], 0)
local last = newest and tonumber(string.match(newest, '^%d+'))
-- A history that is more than a minute ahead was written before the clock was set back. It must not block new samples.
if last and last >= second and last - second < 60 then
  return 0
end
-- As in heartbeat.lua: a full Redis accepts LTRIM, and then LPUSH, which needs no more memory than LTRIM freed.
redis.call('LTRIM', KEYS[1], 0, tonumber(ARGV[3]) - 2)
redis.call('LPUSH', KEYS[1], ARGV[1] .. ' ' .. ARGV[2])
return 1

-- Notes what a process says of itself, and when, by Redis's clock.
--
-- KEYS[1]  aw:pulse
-- ARGV     1 the process's ID; 2 what it says; 3 for how many ms the hash outlives the last beat; 4 how many processes fit
-- Reply    1, or 0 when there is no room for another process

-- A Redis that is full refuses a script at its first write, and only if that one could need memory. This one cannot, and
-- what follows takes the place of a note of the same length.
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local now = redis.call('TIME')
local note = string.format('%.0f %s', now[1] * 1000 + math.floor(now[2] / 1000), ARGV[2])
if redis.call('HSET', KEYS[1], ARGV[1], note) == 1 and redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4]) then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return 0
end
return 1

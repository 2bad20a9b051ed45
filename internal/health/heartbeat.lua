-- Stores a heartbeat with its time by Redis's clock.
--
-- KEYS[1]  aw:pulse
-- ARGV     1 process ID; 2 heartbeat as JSON; 3 TTL of the hash, ms; 4 maximum number of processes
-- Reply    1, or 0 if there is no room for another process

-- A full Redis refuses a script at its first write, and only if that command may need memory. PEXPIRE needs none, and the following
-- HSET replaces a value of the same length.
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local now = redis.call('TIME')
local note = string.format('%.0f %s', now[1] * 1000 + math.floor(now[2] / 1000), ARGV[2])
if redis.call('HSET', KEYS[1], ARGV[1], note) == 1 and redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4]) then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return 0
end
return 1

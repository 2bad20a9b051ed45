-- unpark.lua makes keys due now that were put aside until later: the next drain takes them up. Their retries stay, and find
-- nothing left to do if the drain has got them to Postgres.
--
-- KEYS[1]    {aw:07}:dirty
-- ARGV[i]    key
--
-- Reply: how many of the keys were put aside. Keys that are clean, due or dead are left alone.

local call = redis.call
local dirty = KEYS[1]
local tag = string.sub(dirty, 1, (string.find(dirty, '}', 1, true)))
local t = call('TIME')
local now_ms = t[1] * 1000 + math.floor(t[2] / 1000)

-- With half a millisecond, as in park.lua: when they became dirty is not known.
local unparked = 0
for i = 1, #ARGV do
  local score = tonumber(call('ZSCORE', dirty, ARGV[i]) or 0)
  if score > now_ms and score < 4503599627370496 then
    call('HDEL', tag .. ':dead', ARGV[i]) -- a write that a full Redis lets pass, and the others after it
    call('ZADD', dirty, 'XX', string.format('%.1f', now_ms - 0.5), ARGV[i])
    unparked = unparked + 1
  end
end
return unparked

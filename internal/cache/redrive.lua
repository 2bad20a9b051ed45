-- redrive.lua makes dead keys due again, as if they had just become dirty: the next drain, flush or sweep takes them up.
-- The note goes and the time comes in one step, so that a key is dirty, and either dead or due, at every moment.
--
-- KEYS[1]    {aw:07}:dirty
-- ARGV[i]    key
--
-- Reply: those of the keys that were dead. Done again, it does nothing.
--
-- HDEL comes before ZADD: Redis checks its memory limit before the first write of a script only, and HDEL is not checked.
-- So this works in a Redis that is full, where dead keys are a part of what fills it.

local call = redis.call
local dirty = KEYS[1]
local tag = string.sub(dirty, 1, (string.find(dirty, '}', 1, true)))
local t = call('TIME')
-- With half a millisecond, as in park.lua: when they became dirty is not known.
local now_ms = string.format('%.1f', t[1] * 1000 + math.floor(t[2] / 1000) - 0.5)
call('ZCARD', dirty) -- fails here, before the first write, if somebody has put something else there

local redriven = {}
for i = 1, #ARGV do
  if call('HDEL', tag .. ':dead', ARGV[i]) == 1 then
    -- Without XX: a dead key is dirty, and if somebody has removed its mark, one flush too many is harmless.
    call('ZADD', dirty, now_ms, ARGV[i])
    call('PERSIST', tag .. ':c:' .. ARGV[i])
    redriven[#redriven + 1] = ARGV[i]
  end
end
return redriven

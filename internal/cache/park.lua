-- park.lua puts a dirty key aside that Postgres refused: it stays dirty and goes on taking writes, but no drain looks at
-- it before the given time. For a dead letter that time never comes, and the reason is kept.
--
-- KEYS[1]  {aw:07}:dirty
-- ARGV[1]  key
-- ARGV[2]  ms from now until drains may look at it again; "dead": never
-- ARGV[3]  with "dead": what is known of it, JSON
--
-- Reply: 1, or 0 when the key is no longer dirty.

local call = redis.call
local dirty = KEYS[1]
local tag = string.sub(dirty, 1, (string.find(dirty, '}', 1, true)))
if not call('ZSCORE', dirty, ARGV[1]) then return 0 end
if ARGV[2] == 'dead' then
  -- 2^52 ms: after every time that Redis's clock can show, and exact as a double.
  call('HDEL', tag .. ':dead', ARGV[1]) -- a write that a full Redis lets pass, and the others after it
  call('ZADD', dirty, 'XX', '4503599627370496', ARGV[1])
  call('HSET', tag .. ':dead', ARGV[1], ARGV[3])
else
  -- Also the write that a full Redis lets pass, and after which it lets the others pass.
  call('HDEL', tag .. ':dead', ARGV[1])
  local t = call('TIME')
  -- The half says that this is not when the key became dirty, also once the time has come.
  local due = t[1] * 1000 + math.floor(t[2] / 1000) + math.floor(tonumber(ARGV[2])) + 0.5
  call('ZADD', dirty, 'XX', string.format('%.1f', due), ARGV[1])
end
return 1

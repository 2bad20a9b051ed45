-- mend.lua mends clean entries that differ from their rows: compare-and-change, so that one which was written, or flushed,
-- since it was looked at is left alone.
--
-- KEYS[1]    {aw:07}:dirty
-- KEYS[2]    {aw:07}:gen
-- KEYS[i+2]  entry {aw:07}:c:<key>
-- ARGV[1]    "mark": it becomes dirty again, so that a flush brings it to Postgres
--            "drop": it is removed, so that the next to need it reads Postgres
-- then for each key four: v, n, flags (x deleted, u base unknown) and life, as they were seen
--
-- Reply: a letter for each key: y done, w not: it is not what was seen, or is dirty already.
--
-- ZADD comes first, so a Redis that is full refuses to mark, as a whole. It does not refuse to drop.

local call, pcall, sub = redis.call, redis.pcall, string.sub
local dirty, gen = KEYS[1], KEYS[2]
local t = call('TIME')
local dropped = false
local out = {}

local function as_seen(entry, at)
  local e = pcall('HMGET', entry, 'v', 'n', 'x', 'u', 'e')
  return not e.err and e[1] == ARGV[at + 1] and e[2] == ARGV[at + 2]
    and (e[3] and 'x' or '') .. (e[4] and 'u' or '') == ARGV[at + 3] and (e[5] or '') == ARGV[at + 4]
end

for i = 1, #KEYS - 2 do
  local entry = KEYS[i + 2]
  local key = sub(entry, string.find(entry, '}', 1, true) + 4)
  if not as_seen(entry, 1 + (i - 1) * 4) or call('ZSCORE', dirty, key) then
    out[i] = 'w'
  elseif ARGV[1] == 'mark' then
    call('ZADD', dirty, string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)), key)
    call('PERSIST', entry)
    out[i] = 'y'
  else
    call('DEL', entry)
    dropped = true
    out[i] = 'y'
  end
end

-- What was read from Postgres before an entry was dropped may be as old as the entry: a Redis that lost its tail has its old
-- generation back, too. Renewed as in ack.lua.
if dropped then
  local set = pcall('SET', gen, string.format('%.0f', t[1] * 1000000 + t[2]))
  if set.err then call('DEL', gen) end
end
return table.concat(out)

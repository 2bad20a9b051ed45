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

local dirty, gen = KEYS[1], KEYS[2]
local dropped = false
local out = {}

local function as_seen(name, at)
  local text = pcall('GET', name)
  local e = type(text) == 'string' and decode(text)
  return e and e.v == ARGV[at + 1] and e.n == ARGV[at + 2] and (e.x and 'x' or '') .. (e.u and 'u' or '') == ARGV[at + 3]
    and (e.e or '') == ARGV[at + 4]
end

for i = 1, #KEYS - 2 do
  local name = KEYS[i + 2]
  local key = sub(name, find(name, '}', 1, true) + 4)
  if not as_seen(name, 1 + (i - 1) * 4) or call('ZSCORE', dirty, key) then
    out[i] = 'w'
  elseif ARGV[1] == 'mark' then
    call('ZADD', dirty, now(), key)
    call('PERSIST', name)
    out[i] = 'y'
  else
    call('DEL', name)
    dropped = true
    out[i] = 'y'
  end
end

-- What was read from Postgres before an entry was dropped may be as old as the entry: a Redis that lost its tail has its old
-- generation back, too.
if dropped then renew_generation(sub(gen, 1, -5)) end
return table.concat(out)

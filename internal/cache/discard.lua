-- discard.lua gives up what a dead key has in Redis, but only as long as that is what the operator was shown. A discard
-- is two calls (docs/decisions/0010-discard-is-a-write.md): a rewind, and a removal after Postgres has the rewound state.
--
-- KEYS[1]  {aw:07}:dirty
-- ARGV[1]  key
-- ARGV[2]  the entry as it was shown: "<v> <n>", "<v> <n> u" base unknown, "m" no entry, "e" not an entry
-- ARGV[3]  "rewind": the entry takes the state of ARGV[4..6], and stays dirty and dead
--          "remove": the entry, the dirty mark and the note go, and the generation of the shard is renewed
-- ARGV[4]  value
-- ARGV[5]  version: higher than any that a flush under way may have of the key
-- ARGV[6]  "1": deleted
--
-- Reply: y done, d the key is not dead (any more), w the entry is not what was shown: it was written meanwhile. With d and
-- w nothing has changed.
--
-- The first write of each is one that needs no memory, so that it works in a Redis that is full (see redrive.lua).

local dirty, key = KEYS[1], ARGV[1]
local tag = sub(dirty, 1, (find(dirty, '}', 1, true)))
local name = tag .. ':c:' .. key

-- The entry as peek.lua and its caller see it.
local function state()
  local text = pcall('GET', name)
  if not text then return 'm' end
  local e = type(text) == 'string' and decode(text)
  if not e then return 'e' end
  return e.v .. ' ' .. e.n .. (e.u and ' u' or '')
end

if call('HEXISTS', tag .. ':dead', key) == 0 then return 'd' end
if state() ~= ARGV[2] then return 'w' end

if ARGV[3] == 'rewind' then
  -- Without whatever else is noted there about the state that is given up.
  put(name, { v = ARGV[4], n = ARGV[5], x = ARGV[6] == '1' and '' or nil })
  return 'y'
end

call('DEL', name)
call('ZREM', dirty, key)
call('HDEL', tag .. ':dead', key)
call('SET', tag .. ':gen', microseconds())
return 'y'

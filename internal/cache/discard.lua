-- discard.lua gives up what a dead key has in Redis, but only while that is what the operator was shown. A discard is two
-- calls (docs/decisions/0010-discard-is-a-write.md): a rewind, and a removal after Postgres has the rewound state.
--
-- KEYS[1]  {aw:07}:meta
-- KEYS[2]  {aw:07}:open
-- KEYS[3]  {aw:07}:sealed
-- KEYS[4]  {aw:07}:dead
-- KEYS[5]  entry {aw:07}:c:<key>
-- ARGV[1]  key
-- ARGV[2]  the entry as it was shown: "<v> <n>", "<v> <n> u" base unknown, "m" no entry, "e" not an entry
-- ARGV[3]  "rewind": the entry takes the state of ARGV[4..6], and stays dead
--          "remove": the entry and the note go
-- ARGV[4]  value
-- ARGV[5]  version: higher than any that a flush under way may have of the key
-- ARGV[6]  "1": deleted
--
-- Reply: y done, d the key is not dead (any more), w the entry is not what was shown: it was written meanwhile. With d and
-- w nothing has changed.

local function state()
  local e, corrupt = load(KEYS[5])
  if corrupt then return 'e' end
  return e and e.v .. ' ' .. e.n .. (e.u and ' u' or '') or 'm'
end

local s = epochs(KEYS[1], call('GET', KEYS[1]))
local key = ARGV[1]
if call('HEXISTS', KEYS[4], key) == 0 then return 'd' end
if state() ~= ARGV[2] then return 'w' end -- step: compare

free(KEYS[4])
-- step: renew
renew(s) -- what was read from Postgres before is too old to hydrate from, and what is written now needs a number of its own
save(s)
if ARGV[3] == 'rewind' then
  -- Without whatever else is noted there about the state that is given up. Life 0 is the lineage of the row that the command
  -- writes meanwhile; any older version of it may be replaced.
  put(KEYS[5], {
    v = ARGV[4], n = ARGV[5], x = ARGV[6] == '1' or nil, a = true, epoch = s.open, l = '0', b = sum(ARGV[5], '0', '1'),
  })
  return 'y'
end

call('DEL', KEYS[5])
call('SREM', KEYS[2], key)
call('SREM', KEYS[3], key)
call('HDEL', KEYS[4], key)
return 'y'

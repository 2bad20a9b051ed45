-- discard.lua discards the entry of a dead key, but only if it has not changed since it was shown to the operator. A discard is two calls
-- (docs/decisions/0010-discard-is-a-write.md): a rewind, and a removal once Postgres has the rewound state.
--
-- KEYS[1]  {aw:07}:meta
-- KEYS[2]  {aw:07}:open
-- KEYS[3]  {aw:07}:sealed
-- KEYS[4]  {aw:07}:dead
-- KEYS[5]  entry {aw:07}:c:<key>
-- ARGV[1]  key
-- ARGV[2]  the entry as it was shown: "<v> <n>", "<v> <n> u" base unknown, "m" missing, "e" corrupt
-- ARGV[3]  "rewind": give the entry the state of ARGV[4..6]; it stays dead
--          "remove": remove the entry and the note
-- ARGV[4]  value
-- ARGV[5]  version: higher than any that a flush in progress may write
-- ARGV[6]  "1": deleted
--
-- Reply: y done; d the key is not dead, or no longer; w the entry was written since it was shown. After d and w nothing has changed.

local e, corrupt = load(KEYS[5])

local function state()
  if corrupt then return 'e' end
  return e and e.v .. ' ' .. e.n .. (e.u and ' u' or '') or 'm'
end

local s = epochs(KEYS[1], call('GET', KEYS[1]))
local key = ARGV[1]
if call('HEXISTS', KEYS[4], key) == 0 then return 'd' end
if state() ~= ARGV[2] then return 'w' end -- step: compare

local recorded = e and e.h
local has = (recorded or ARGV[3] == 'remove') and length(KEYS[5])
free(KEYS[4])
-- step: renew
renew(s) -- rows read from Postgres before must not be hydrated, and the next write needs a new lineage
save(s)
if ARGV[3] == 'rewind' then
  if recorded then -- the discard takes the place of the writes that it drops
    local text = table.concat({ ARGV[5], ARGV[4], '0', ARGV[6] == '1' and 'r' or 'r' .. ARGV[4], milliseconds(), '' }, ' ')
    replace_records(KEYS[5], has, text)
    save_lists()
  end
  -- The other fields of the discarded entry are dropped. The operator's command meanwhile writes a row of lineage 0; this entry may replace
  -- any older version of that row.
  put(KEYS[5], {
    v = ARGV[4], n = ARGV[5], x = ARGV[6] == '1' or nil, a = true, h = recorded, epoch = s.open, l = '0',
    b = sum(ARGV[5], '0', '1'),
  })
  return 'y'
end

drop_records(KEYS[5], has)
save_lists()
call('DEL', KEYS[5])
call('SREM', KEYS[2], key)
call('SREM', KEYS[3], key)
call('HDEL', KEYS[4], key)
return 'y'

-- convert.lua moves entries of layout 2 from their old shard to their new one, which may be the same, as entries of layout 3.
-- The caller has read and translated them. Keys that have changed since are skipped.
--
-- ARGV[1]  the step:
--          move  everything in one atomic step, if both shards are on this server
--          put   write the new shard. An entry of layout 3 that exists is kept. The caller removes the old keys with drop
--          drop  remove the keys from the old shard
-- ARGV[2]  the token of the conversion: if the new shard does not have it, the conversion is over
-- ARGV[3]  when the oldest dirty key became dirty, ms; "": no key is dirty
-- ARGV[4]  the highest lineage of the entries, decimal: the first epoch of the shard must be newer
-- then for each key eight: key; its entry, score and note as they were read ("" if there is none); its new entry ("!": as it
--          is, whatever that is; "": it has none, or needs no change); TTL of that, ms (0: none); what becomes of the key ("clean",
--          "open", "dead", or when its retry is due, ms); the note of a dead one
-- KEYS     move and put: meta, open, retry, dead, conversion of the new shard; move and drop: dirty, dead of the old shard; then for each
--          key: move and put its new name; then for each: move and drop its old name
--
-- Reply: a letter for each key: y done, w not: it has changed since it was read. An error "CONVERTED" if the conversion is over.
--
-- Errors come before the first write, which is one that needs no memory: a full Redis refuses neither it nor those after it.

local KEY, WAS, SCORE, NOTE, BECOMES, TTL, MARK, REASON = 1, 2, 3, 4, 5, 6, 7, 8
local FIELDS, HEAD = 8, 4
local what, count = ARGV[1], (#ARGV - HEAD) / FIELDS
local puts, drops = what ~= 'drop', what ~= 'put'
local names = (puts and 5 or 0) + (drops and 2 or 0)
local meta, shard_open, retry, dead, conversion = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local old_dirty, old_dead = KEYS[names - 1], KEYS[names]

local function arg(i, field) return ARGV[HEAD + (i - 1) * FIELDS + field] end
local function new_name(i) return KEYS[names + i] end
local function old_name(i) return KEYS[names + (puts and count or 0) + i] end

-- Returns for each key whether its old shard still has what the caller read.
local function compare()
  local same, keys, old = {}, {}, {}
  for i = 1, count do keys[i], old[i] = arg(i, KEY), old_name(i) end
  local texts = call('MGET', unpack(old))
  local scores = call('ZMSCORE', old_dirty, unpack(keys))
  local notes = call('HMGET', old_dead, unpack(keys))
  for i = 1, count do
    same[i] = (texts[i] or '') == arg(i, WAS) and (notes[i] or '') == arg(i, NOTE)
      and tonumber(scores[i] or '') == tonumber(arg(i, SCORE))
  end
  return same
end

-- Returns whether the new shard has the token. It fails if one of the shard's keys has an unexpected type.
local function check()
  call('SCARD', shard_open)
  call('ZCARD', retry)
  call('HLEN', dead)
  return call('GET', conversion) == ARGV[2]
end

-- Returns whether there is an entry of layout 3: its third field is an epoch.
local function in_place(name)
  local text = pcall('GET', name)
  local epoch = type(text) == 'string' and match(text, '^%-?%d+ %d+ (%w+)')
  return epoch and (epoch == '0' or #epoch == 10)
end

-- Makes the first epoch of the shard, which is open, newer than all lineages, as after a restart.
local function outgrow(s)
  local lineage = tonumber(ARGV[4])
  if lineage < s.first then return end
  s.open, s.first, s.changed = base36(lineage + 1), lineage + 1, true
  s.first_id = s.open
end

local function put_entry(i)
  local text, name, ttl = arg(i, BECOMES), new_name(i), tonumber(arg(i, TTL))
  if text == '' or (not drops and (text == '!' or in_place(name))) then return end
  if text == '!' then
    if old_name(i) ~= name and call('EXISTS', old_name(i)) == 1 then call('RENAME', old_name(i), name) end
    return
  end
  if drops then call('DEL', old_name(i)) end
  if ttl > 0 then call('SET', name, text, 'PX', arg(i, TTL)) else call('SET', name, text) end
end

local function drop_marks(i)
  call('ZREM', old_dirty, arg(i, KEY))
  if arg(i, NOTE) ~= '' then call('HDEL', old_dead, arg(i, KEY)) end
end

local function put_mark(i, joining)
  local mark, key = arg(i, MARK), arg(i, KEY)
  if mark == 'open' then
    joining[#joining + 1] = key
  elseif mark == 'dead' then
    call('HSET', dead, key, arg(i, REASON))
  elseif mark ~= 'clean' then
    call('ZADD', retry, mark, key)
  end
end

if puts and not check() then return redis.error_reply('CONVERTED the conversion is over') end
local same = drops and compare()
local s, joining, out = nil, {}, {}
if puts then
  s = epochs(meta, call('GET', meta))
  free(dead)
  outgrow(s)
  if ARGV[3] ~= '' and (s.since == '0' or tonumber(ARGV[3]) < tonumber(s.since)) then
    s.since, s.changed = ARGV[3], true
  end
  save(s)
end
for i = 1, count do
  out[i] = (puts and not drops or same[i]) and 'y' or 'w'
  if out[i] == 'y' then
    if puts then put_entry(i) end
    if drops then drop_marks(i) end
    if puts then put_mark(i, joining) else call('UNLINK', old_name(i)) end
  end
end
if puts then
  join(s, shard_open, joining)
  if #joining > 0 then renew(s) end -- see requeue.lua: their lineages began earlier
  save(s)
end
return table.concat(out)

-- apply.lua runs a batch of operations on counters, in order, and marks what they change as dirty. One atomic step: an
-- entry never changes without its dirty mark. It reads all entries with one command and writes them with one.
--
-- KEYS[i]    the entry that operation i is about: {aw:07}:c:<key>. Its shard's other keys have the same hash tag and
--            are derived from it. On a cluster two more follow, the shard's dirty and gen: they must be where the entries
--            are while slots move, and Redis only looks at the keys that it is told of. Last come the records of those
--            operations that have an ID: {aw:07}:i:<ID>, a NUL, and <key>.
-- ARGV[1]    "1": keys that are clean may become dirty; "0": there are too many dirty keys already
-- ARGV[2]    how long records are kept, ms
-- ARGV[3]    how many operations there are
-- ARGV[4]    the operations, separated by spaces: a letter and its amount: g get, i5 increment by 5, s7 set to 7, d delete. A
--            capital letter (I5) takes the operation although the base is unknown, instead of answering c or w. "#9:" before
--            it says that KEYS[9] is its record.
--
-- Reply: one string, a line for each operation:
--   a <value> <version> <backlog>   applied. backlog is the number of dirty keys of the shard after the batch if the key has
--                                   just become dirty, 0 if it was dirty before
--   u <backlog>                     applied to an unknown base
--   k <value> <version> <synced>    not changed; as it stands. synced is 1 if the key is not dirty
--   n <version> <synced>            not changed; deleted, or never written (version 0)
--   c <generation>                  not applied: there is no entry. Bring the base with hydrate.lua and this generation
--   w <generation>                  not applied: the same, but there are blind writes that wait for the base
--   o                               not applied: the sum would overflow
--   b                               not applied: too many dirty keys
--   e                               not applied: the entry is not what it should be (somebody else wrote there)
--   t                               not applied: the entry cannot be read now
--   r <line>                        not applied again: an operation with this ID was, and this was answered
--   m                               not applied: another operation with this ID was
--
-- A dirty entry has a life (its letter e): which Redis its unsynced writes were made in, and a number that is drawn at the
-- first of them. The first write after a restart or a failover begins a new life, so what such a Redis has lost can be told
-- from what it has got since (see reconcile.lua). Its earlier lives are kept in p: ";number,value,version" as they were at the
-- end of each, with "set" for the value if it was set or deleted since. b and w are version and value as they were before the
-- first of its lives, without w if the value was set or deleted since: a state that Postgres has had.

local may_dirty = ARGV[1] == '1'
local alive = ' e' .. incarnation()   -- what follows the version of an entry that is dirty, of this Redis, and nothing special

local entries = {}  -- by name: those that the batch is about, as they become
local changed = {}  -- those of them to be written
local marks = {}    -- by tag: those that become dirty
local waiting = {}  -- by operation: the tag whose backlog its line has to be given

-- The entry of an operation. It has v, n and rest, as split returns them, or no v if there is none in Redis.
local function entry(name, text)
  local e = { name = name, rest = '' }
  if text then
    e.v, e.n, e.rest = split(text)
    if e.v then
      e.alive = sub(e.rest, 1, 10) == alive
    else
      e.foreign = true
    end
  end
  entries[name] = e
  return e
end

-- Its shard's tag and its key.
local function home(e)
  if not e.tag then
    local close = find(e.name, '}', 1, true)
    e.tag, e.key = sub(e.name, 1, close), sub(e.name, close + 4)
  end
  return e.tag, e.key
end

-- Whether the key of an entry is dirty. Without a life it may be, when its mark was made by hand or by mend.lua.
local function is_dirty(e, of)
  if of.e then return true end
  local tag, key = home(e)
  return pcall('ZSCORE', tag .. ':dirty', key) and true
end

-- The generation of a shard changes with every ack, see hydrate.lua. It is made here when it is missing so that "no
-- generation" never compares equal. "-": there is none, since Redis is full or something else is in its place.
local function generation(tag)
  local gen = pcall('GET', tag .. ':gen')
  if type(gen) == 'table' then return '-' end
  if not gen then
    gen = microseconds()
    if pcall('SET', tag .. ':gen', gen).err then return '-' end
  end
  return gen
end

local function change(e, v, n)
  e.v, e.n = v, n
  if not e.changed then
    e.changed = true
    changed[#changed + 1] = e
  end
end

-- Marks the key of e as dirty, at the end of the script and before anything is written.
local function mark(e)
  local tag = home(e)
  local shard = marks[tag]
  if not shard then
    shard = { tag .. ':dirty', 'NX' }
    marks[tag] = shard
  end
  shard[#shard + 1] = now()
  shard[#shard + 1] = e.key
  return tag
end

-- The life of the entry from this write on, and what it began from where it begins now. of has the letters of e.
local function live(e, of, kind)
  local v, n = e.v, e.n
  local tag
  if not of.e then
    tag = mark(e)
    of.e, of.b, of.w = new_life(), n or '0', v or '0'
  elseif sub(of.e, 1, 8) ~= incarnation() then -- the base stays: Postgres need not have what the earlier life wrote
    tag = mark(e)
    of.p = fmt('%s;%s,%s,%s', of.p or '', sub(of.e, 9), v, n)
    of.e = new_life()
  end
  if kind ~= 'i' and v then
    of.w = nil
    if of.p then of.p = string.gsub(of.p, ',[^,;]+,', ',set,') end
  end
  return tag
end

-- Carries out one operation of any kind on an entry in any state. Returns the line to answer, whether it changed the entry,
-- and the tag of the shard whose backlog it is to be given.
local function operate(e, op, by)
  local kind = string.lower(op)
  if e.foreign then return 'e' end
  local of = {}
  for letter, what in gmatch(e.rest, ' (%l)(%S*)') do of[letter] = what end
  local v, u = e.v, of.u
  -- MGET is silent about what is no string.
  if not v and call('EXISTS', e.name) == 1 then return 'e' end
  if not may_dirty and kind ~= 'g' and not is_dirty(e, of) then
    return 'b' -- before the base of a cold key is asked for: that would cost a read and an entry
  end
  if (not v or u) and op == kind then return (v and 'w ' or 'c ') .. generation((home(e))) end
  if kind == 'g' or (kind == 'd' and of.x) then
    if u then return 'u', true end
    local synced = is_dirty(e, of) and 0 or 1
    return of.x and fmt('n %s %d', e.n, synced) or fmt('k %s %s %d', v, e.n, synced)
  end

  local value, n = by, sum(e.n or '0', '1')
  if not n then return 'e' end -- no counter has been written that often
  if kind == 'i' then
    value = sum(v or '0', by)
    if not value then return 'o' end
  elseif kind == 'd' then
    value = '0'
  end
  local tag = live(e, of, kind)
  of.x = kind == 'd' and '' or nil
  local based = v and not u
  -- u: the base is unknown; 1 for value and version, 2 for the version only.
  if not based then of.u = (kind ~= 'i' or u == '2') and '2' or '1' end
  change(e, value, n)
  e.rest = encode_rest(of)
  e.alive = sub(e.rest, 1, 10) == alive
  return based and fmt('a %s %s', value, e.n) or 'u', true, tag
end

-- What an operation with an ID answers that is not carried out, because one with this ID was.
local function replay(record, op)
  local kept = pcall('GET', record)
  if not kept then return nil end
  if type(kept) == 'table' then return find(kept.err, 'WRONGTYPE', 1, true) and 'e' or 't' end
  local was, answer = match(kept, '^([^|]*)|(.*)$')
  if was ~= op then return 'm' end
  return 'r ' .. answer
end

local out = {}
local records = {} -- to be written: three for each, with the operation's number and what it was
local recorded = {} -- by name: operations of this batch with an ID, which come again in it

-- Carries out operation i, which has an ID.
local function once(i, e, op)
  local at = find(op, ':', 1, true)
  local record = KEYS[tonumber(sub(op, 2, at - 1))]
  op = sub(op, at + 1)
  local what = string.lower(op)
  local before = recorded[record]
  if before then
    out[i] = before.what == what and before or 'm'
    return
  end
  local line = replay(record, what)
  if line then
    out[i] = line
    return
  end
  local done, tag
  line, done, tag = operate(e, sub(op, 1, 1), sub(op, 2))
  out[i], waiting[i] = line, tag
  if done or byte(line) == 110 then -- n: deleted already
    -- A replay has no backlog: its key has not just become dirty.
    recorded[record] = { what = what, line = done and line .. ' 0' or line, of = e }
    records[#records + 1] = record
    if done and not tag then out[i] = line .. ' 0' end
  end
end

local operations = tonumber(ARGV[3])
local texts = pcall('MGET', unpack(KEYS, 1, operations))
if texts.err then return string.sub(string.rep('t\n', operations), 1, -2) end

local i = 0
for op in gmatch(ARGV[4], '%S+') do
  i = i + 1
  local name = KEYS[i]
  local e = entries[name] or entry(name, texts[i])
  local letter = byte(op)
  local by = sub(op, 2)
  local short = e.v and #by <= 14 and #e.v <= 14 and #e.n <= 14
  -- The way of nearly all: an increment of a counter that is there and not deleted, and dirty already, or not yet.
  if short and (letter == 105 or letter == 73) and (e.alive or e.rest == '' and may_dirty) then -- i, I
    local v, n = fmt('%.0f', e.v + by), fmt('%.0f', e.n + 1)
    local line = 'a ' .. v .. ' ' .. n
    if e.alive then
      line = line .. ' 0'
    else
      waiting[i] = mark(e)
      e.rest, e.alive = fmt(' e%s b%s w%s', new_life(), e.n, e.v), true
    end
    out[i] = line
    change(e, v, n)
  elseif letter == 35 then -- #
    once(i, e, op)
  else
    local line, done, tag = operate(e, sub(op, 1, 1), by)
    if done and not tag then line = line .. ' 0' end
    out[i], waiting[i] = line, tag
  end
end

-- Marks come before writes: where that cannot be done, because somebody has put something else in the place of the dirty set,
-- nothing is written in that shard.
local backlogs, failed = {}, false
for tag, shard in pairs(marks) do
  local added = pcall('ZADD', unpack(shard))
  if type(added) ~= 'table' then
    backlogs[tag] = added > 0 and call('ZCARD', shard[1]) or 0
  elseif find(added.err, 'WRONGTYPE', 1, true) then
    backlogs[tag], failed = 'e', true
  else
    error(added.err, 0) -- Redis is full: it says so before the first write of a call, so nothing is half-done
  end
end
local function refused(e) return failed and e.changed and backlogs[(home(e))] == 'e' end

local writes = {}
for j = 1, #changed do
  local e = changed[j]
  if not refused(e) then
    local at = #writes
    writes[at + 1], writes[at + 2] = e.name, e.v .. ' ' .. e.n .. e.rest
  end
end
if #writes > 0 then call('MSET', unpack(writes)) end
for j = 1, #records do
  local record = recorded[records[j]]
  if not refused(record.of) then call('SET', records[j], record.what .. '|' .. record.line, 'PX', ARGV[2]) end
end

for j = 1, operations do
  local line, tag = out[j], waiting[j]
  if refused(entries[KEYS[j]]) then
    line = 'e'
  elseif type(line) == 'table' then
    line = 'r ' .. line.line
  elseif tag then
    line = line .. ' ' .. backlogs[tag]
  end
  out[j] = line
end
return table.concat(out, '\n')

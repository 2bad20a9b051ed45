-- apply.lua runs a batch of operations on counters, in order, and marks what they change as dirty. One atomic step: an
-- entry never changes without its dirty mark.
--
-- KEYS[i]    the entry that operation i is about: {aw:07}:c:<key>. Its shard's other keys have the same hash tag and
--            are derived from it. On a cluster two more follow, the shard's dirty and gen: they must be where the entries
--            are while slots move, and Redis only looks at the keys that it is told of. Last come the records of those
--            operations that have an ID: {aw:07}:i:<ID>, a NUL, and <key>.
-- ARGV[1]    "1": keys that are clean may become dirty; "0": there are too many dirty keys already; and then how long records
--            are kept, ms
-- ARGV[i+1]  operation i, a letter and its amount: g get, i5 increment by 5, s7 set to 7, d delete. A capital letter
--            (I5) takes the operation although the base is unknown, instead of answering c or w. "#9:" before it says
--            that KEYS[9] is its record.
--
-- Reply: one string, a line for each operation:
--   a <value> <version> <backlog>   applied. backlog is the number of dirty keys of the shard if the key has just become
--                                   dirty, 0 if it was dirty before
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
-- A dirty entry has a life (field e): which Redis its unsynced writes were made in, and a number that is drawn at the first of
-- them. The first write after a restart or a failover begins a new life, so what such a Redis has lost can be told from what
-- it has got since (see reconcile.lua). Its earlier lives are kept in p: ";number,value,version" as they were at the end of
-- each, with "set" for the value if it was set or deleted since. bn and bv are version and value as they were before the first
-- of its lives, without bv if the value was set or deleted since: a state that Postgres has had.

local may_dirty = string.byte(ARGV[1]) == 49 -- 1
local call, pcall = redis.call, redis.pcall
local sub, find, fmt = string.sub, string.find, string.format

local now_ms
local function now()
  if not now_ms then
    local t = call('TIME')
    now_ms = fmt('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
  end
  return now_ms
end

-- The life that a first write begins now: 8 digits that name this incarnation of Redis (a restart and a promotion make new
-- ones), and then a number.
local run
local function incarnation()
  run = run or string.match(call('INFO', 'replication'), 'master_replid:(%x%x%x%x%x%x%x%x)') or '00000000'
  return run
end

local born
local function new_life()
  if not born then
    local t = call('TIME')
    born = incarnation() .. fmt('%.0f', t[1] * 1000000 + t[2])
  end
  return born
end

-- The generation of a shard changes with every ack, see hydrate.lua. It is made here when it is missing so that "no
-- generation" never compares equal. "-": there is none, since Redis is full or something else is in its place.
local function generation(tag)
  local gen = pcall('GET', tag .. ':gen')
  if type(gen) == 'table' then return '-' end
  if not gen then
    local t = call('TIME')
    gen = fmt('%.0f', t[1] * 1000000 + t[2])
    if pcall('SET', tag .. ':gen', gen).err then return '-' end
  end
  return gen
end

-- Lua's numbers are doubles: exact up to 15 digits whatever the sum, so only longer ones need Redis's 64-bit addition.
-- Returns the sum and whether it has been stored; or nil and the line to answer: then nothing has changed.
local function add(tag, entry, value, by)
  if #value <= 15 and #by <= 15 then
    local sum = tonumber(value)
    if not sum or sum % 1 ~= 0 then return nil, 'e' end
    return fmt('%.0f', sum + tonumber(by)), false
  end
  if type(pcall('ZCARD', tag .. ':dirty')) == 'table' then return nil, 'e' end -- as in mark
  local sum = pcall('HINCRBY', entry, 'v', by)
  if type(sum) == 'table' then
    if find(sum.err, 'overflow', 1, true) then return nil, 'o' end
    if find(sum.err, 'integer', 1, true) then return nil, 'e' end
    error(sum.err, 0) -- Redis is full: it says so before the first write of a call, so nothing is half-done
  end
  return call('HGET', entry, 'v'), true
end

local backlogs = {} -- of the shards in which a key has become dirty in this call
local out = {}

-- Marks key dirty; returns the backlog as the reply has it. It comes before the write: where it cannot be done, because
-- somebody has put something else in the place of the dirty set, it returns nil, and nothing is written.
local function mark(tag, entry, key)
  local dirty = tag .. ':dirty'
  local added = pcall('ZADD', dirty, 'NX', now(), key)
  if type(added) == 'table' then
    if find(added.err, 'WRONGTYPE', 1, true) then return nil end
    error(added.err, 0) -- Redis is full: it says so before the first write of a call
  end
  if added == 0 then return 0 end
  call('PERSIST', entry)
  local backlog = backlogs[tag]
  backlog = backlog and backlog + 1 or call('ZCARD', dirty)
  backlogs[tag] = backlog
  return backlog
end

-- Stores the new state of an entry, and what its life began from where it begins now.
local function store(entry, kind, value, stored, v, n, life)
  local version = fmt('%.0f', (n or 0) + 1)
  if life and sub(life, 1, 8) == incarnation() then
    if stored then
      call('HSET', entry, 'n', version)
    else
      call('HSET', entry, 'v', value, 'n', version)
    end
  elseif life then -- the base stays: Postgres need not have what the earlier life wrote
    local lives = fmt('%s;%s,%s,%s', call('HGET', entry, 'p') or '', sub(life, 9), v, n)
    call('HSET', entry, 'v', value, 'n', version, 'e', new_life(), 'p', lives)
  else
    call('HSET', entry, 'v', value, 'n', version, 'e', new_life(), 'bv', v or '0', 'bn', n or '0')
  end
  if kind ~= 'i' and v then
    call('HDEL', entry, 'bv')
    local lives = life and call('HGET', entry, 'p')
    if lives then call('HSET', entry, 'p', (string.gsub(lives, ',[^,;]+,', ',set,'))) end
  end
  return version
end

-- Carries out one operation and returns the line to answer, and the backlog if the key has just become dirty.
local function operate(entry, op, by)
  local close = find(entry, '}', 1, true)
  local tag, key = sub(entry, 1, close), sub(entry, close + 4)
  local kind = string.lower(op)

  local e = pcall('HMGET', entry, 'v', 'n', 'x', 'u', 'e')
  if e.err then return find(e.err, 'WRONGTYPE', 1, true) and 'e' or 't' end
  local v, n, x, u = e[1], e[2], e[3], e[4]
  if v and not tonumber(n) or n and not v then return 'e' end
  if not may_dirty and kind ~= 'g' and not pcall('ZSCORE', tag .. ':dirty', key) then
    return 'b' -- before the base of a cold key is asked for: that would cost a read and an entry
  end
  if (not v or u) and op == kind then return (v and 'w ' or 'c ') .. generation(tag) end
  if kind == 'g' or (kind == 'd' and x) then
    if u then return 'u', 0 end
    local synced = pcall('ZSCORE', tag .. ':dirty', key) and 0 or 1
    return x and fmt('n %s %d', n, synced) or fmt('k %s %s %d', v, n, synced)
  end

  local value, stored = by, false
  if kind == 'i' then
    value, stored = add(tag, entry, v or '0', by)
    if not value then return stored end
  elseif kind == 'd' then
    value = '0'
  end
  local backlog = mark(tag, entry, key)
  if not backlog then return 'e' end
  local version = store(entry, kind, value, stored, v, n, e[5])
  -- x: deleted. u: the base is unknown; 1 for value and version, 2 for the version only.
  if kind == 'd' then
    call('HSET', entry, 'x', '1')
  elseif x then
    call('HDEL', entry, 'x')
  end
  if v and not u then return fmt('a %s %s', value, version), backlog end
  local base = (kind ~= 'i' or u == '2') and '2' or '1'
  if base ~= u then call('HSET', entry, 'u', base) end
  return 'u', backlog
end

-- What an operation with an ID answers that is not carried out, because one with this ID was.
local function replay(record, op)
  local kept = pcall('GET', record)
  if not kept then return nil end
  if type(kept) == 'table' then return find(kept.err, 'WRONGTYPE', 1, true) and 'e' or 't' end
  local was, answer = string.match(kept, '^([^|]*)|(.*)$')
  if was ~= op then return 'm' end
  return 'r ' .. answer
end

for i = 1, #ARGV - 1 do
  local op, record, line, backlog = ARGV[i + 1], nil, nil, nil
  if string.byte(op) == 35 then -- #
    local at = find(op, ':', 1, true)
    record, op = KEYS[tonumber(sub(op, 2, at - 1))], sub(op, at + 1)
    line = replay(record, string.lower(op))
  end
  if not line then
    line, backlog = operate(KEYS[i], sub(op, 1, 1), sub(op, 2))
    local done = backlog or string.byte(line) == 110 -- n: deleted already
    if record and done then
      -- A replay has no backlog: its key has not just become dirty.
      call('SET', record, fmt('%s|%s%s', string.lower(op), line, backlog and ' 0' or ''), 'PX', sub(ARGV[1], 3))
    end
    if backlog then line = fmt('%s %d', line, backlog) end
  end
  out[i] = line
end

return table.concat(out, '\n')

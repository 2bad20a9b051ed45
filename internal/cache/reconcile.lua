-- reconcile.lua mends entries of a Redis that lost its tail: it came back (from an older snapshot, or as a replica that
-- lagged) without writes that Postgres has. What was written since it came back is put on top of what Postgres has.
--
-- KEYS[1]    {aw:07}:dirty
-- KEYS[i+1]  entry {aw:07}:c:<key>
-- ARGV[1]    TTL of a clean entry, ms
-- then for each key seven: what to do, its life and base version as they were peeked, value, version, deleted ("1", "0") and
-- lineage of Postgres's row. What to do:
--   "m"  merge: the row is newer than the base of this life, so it has writes that this life does not know. The value becomes
--        that of the row and what was added in this life, or what this life set; likewise the version. It stays dirty. But
--        a life of before the restart, untouched since, is a part of a row whose lineage began no earlier: it is adopted.
--   "a"  adopt: the row is a later state of this very life, or there is no life since nothing was written: it becomes the
--        row, and clean.
--
-- Reply: a letter for each key: y done, w not: it has moved on since it was peeked; o not: the sum would overflow.

local call, pcall = redis.call, redis.pcall
local dirty = KEYS[1]
local tag = string.sub(dirty, 1, (string.find(dirty, '}', 1, true)))

local incarnation = string.match(call('INFO', 'replication'), 'master_replid:(%x%x%x%x%x%x%x%x)') or '00000000'

local function merge(entry, e, value, version)
  local bv, bn = e[3], e[4]
  call('HDEL', entry, 'bn', 'c') -- a write that a full Redis lets pass, and the others after it
  if bv and not shift(entry, value, bv) then
    call('HSET', entry, 'bn', bn)
    return 'o'
  end
  call('HINCRBY', entry, 'n', version)
  call('HINCRBY', entry, 'n', bn == '0' and '0' or '-' .. bn)
  call('HSET', entry, 'bn', version)
  if bv then call('HSET', entry, 'bv', value) end
  return 'y'
end

local function adopt(entry, key, value, version, deleted)
  call('ZREM', dirty, key) -- likewise
  call('HSET', entry, 'v', value, 'n', version)
  if deleted == '1' then call('HSET', entry, 'x', '1') else call('HDEL', entry, 'x') end
  call('HDEL', entry, 'e', 'bv', 'bn', 'c')
  call('HDEL', tag .. ':dead', key)
  call('PEXPIRE', entry, ARGV[1])
  return 'y'
end

local out = {}
for i = 1, (#ARGV - 1) / 7 do
  local entry, at = KEYS[i + 1], 1 + (i - 1) * 7
  local life, base, value, version = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local e = pcall('HMGET', entry, 'n', 'e', 'bv', 'bn', 'u')
  local part = string.sub(life, 1, 8) ~= incarnation and (tonumber(string.sub(life, 9)) or 0) <= tonumber(ARGV[at + 7])
  if e.err or not e[1] or e[5] or (e[2] or '') ~= life then
    out[i] = 'w'
  elseif (ARGV[at + 1] == 'a' or part) and tonumber(e[1]) < tonumber(version) then
    out[i] = adopt(entry, string.sub(entry, #tag + 4), value, version, ARGV[at + 6])
  elseif ARGV[at + 1] == 'm' and e[4] == base then
    out[i] = merge(entry, e, value, version)
  else
    out[i] = 'w'
  end
end
return table.concat(out)

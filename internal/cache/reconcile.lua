-- reconcile.lua mends entries of a Redis that lost its tail: it came back (from an older snapshot, or as a replica that
-- lagged) without writes that Postgres has. What was written since it came back is put on top of what Postgres has.
--
-- KEYS[1]    {aw:07}:dirty
-- KEYS[i+1]  entry {aw:07}:c:<key>
-- ARGV[1]    TTL of a clean entry, ms
-- then for each key seven: what to do, its life and base version as they were peeked, value, version, deleted ("1", "0") and
-- lineage of Postgres's row. What to do:
--   "m"  merge: the row is newer than the base of this entry, so it may have writes that this entry does not know. The value
--        becomes that of the row and what was added since the base, or what was set since; likewise the version. It stays
--        dirty, and begins a new life. But a row has the writes of every earlier life that began no later than its lineage:
--        then it is what was added since that life, and an entry whose lives the row has all of is adopted.
--   "a"  adopt: the row is a later state of this very life, or there is no life since nothing was written: it becomes the
--        row, and clean.
--
-- Reply: a letter for each key: y done, w not: it has moved on since it was peeked; o not: the sum would overflow.

local call, pcall = redis.call, redis.pcall
local dirty = KEYS[1]
local tag = string.sub(dirty, 1, (string.find(dirty, '}', 1, true)))

-- had is what the entry was at the end of the last of its lives that the row has, or else its base. Its present life is
-- over if it is of another incarnation. If not, the row cannot have it, whatever the numbers say: after a failover they may
-- come from a clock that is behind.
local function merge(entry, e, value, version, lineage)
  local had, had_n, lives = e[3] or 'set', e[4], e[6] or ''
  call('HDEL', entry, 'bn', 'c') -- a write that a full Redis lets pass, and the others after it
  if string.sub(e[2], 1, 8) ~= incarnation then
    lives = string.format('%s;%s,%s,%s', lives, string.sub(e[2], 9), call('HGET', entry, 'v'), e[1])
  end
  for began, with, with_n in string.gmatch(lives, ';(%d+),([^,;]+),(%d+)') do
    if began == lineage and tonumber(version) < tonumber(with_n) then
      -- The row is not ahead: it is that life as it was before its end. So it may be replaced. (The life is a new one so
      -- that the ack of the flush that was kept out finds it changed.)
      call('HSET', entry, 'bn', version, 'e', new_life(), 'p', lives)
      if e[3] then call('HSET', entry, 'bv', value) end
      return 'y'
    end
    if tonumber(began) <= tonumber(lineage) then had, had_n = with, with_n end
  end
  if had ~= 'set' and not shift(entry, value, had) then
    call('HSET', entry, 'bn', e[4])
    return 'o'
  end
  call('HINCRBY', entry, 'n', version)
  if had_n ~= '0' then call('HINCRBY', entry, 'n', '-' .. had_n) end
  call('HSET', entry, 'bn', version, 'e', new_life())
  if had ~= 'set' then call('HSET', entry, 'bv', value) else call('HDEL', entry, 'bv') end
  call('HDEL', entry, 'p')
  return 'y'
end

local function adopt(entry, key, value, version, deleted)
  call('ZREM', dirty, key) -- likewise
  call('HSET', entry, 'v', value, 'n', version)
  if deleted == '1' then call('HSET', entry, 'x', '1') else call('HDEL', entry, 'x') end
  call('HDEL', entry, 'e', 'bv', 'bn', 'p', 'c')
  call('HDEL', tag .. ':dead', key)
  call('PEXPIRE', entry, ARGV[1])
  return 'y'
end

local out = {}
for i = 1, (#ARGV - 1) / 7 do
  local entry, at = KEYS[i + 1], 1 + (i - 1) * 7
  local life, base, value, version = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local e = pcall('HMGET', entry, 'n', 'e', 'bv', 'bn', 'u', 'p')
  local part = string.sub(life, 1, 8) ~= incarnation and (tonumber(string.sub(life, 9)) or 0) <= tonumber(ARGV[at + 7])
  if e.err or not e[1] or e[5] or (e[2] or '') ~= life then
    out[i] = 'w'
  elseif (ARGV[at + 1] == 'a' or part) and tonumber(e[1]) < tonumber(version) then
    out[i] = adopt(entry, string.sub(entry, #tag + 4), value, version, ARGV[at + 6])
  elseif ARGV[at + 1] == 'm' and e[4] == base then
    out[i] = merge(entry, e, value, version, ARGV[at + 7])
  else
    out[i] = 'w'
  end
end
return table.concat(out)

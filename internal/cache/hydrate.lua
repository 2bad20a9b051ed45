-- hydrate.lua brings what Postgres has of some counters into their entries: it creates the entry of a cold key, and
-- gives its base to an entry that was written while the base was unknown (u). An entry that is complete is left alone.
--
-- The generation is that of the shard from before Postgres was asked. It changes with every ack, so when it is still
-- the same, no flush has been completed in between and what was read is what Postgres has. Without this check, a slow
-- reader could bring back an old state of a key that was meanwhile written, flushed and evicted.
--
-- An entry that is rebased may come from before a restart of Redis, and may have been rebased and flushed already, after
-- what that Redis still knows. Lineages tell: they are the numbers of the entry's lives, and so the times when these began. A
-- row whose lineage began no earlier than a life of before the restart has the writes of that life.
--
-- KEYS[i]   entry {aw:07}:c:<key>; on a cluster dirty and gen of the shard follow (see apply.lua)
-- ARGV[1]   TTL of a created entry, ms
-- ARGV[2]   TTL of a created entry when Postgres has no row, ms
-- then for each key five: generation, value, version, state: "r" row, "x" tombstone, "-" no row (value, version "0"), lineage
--
-- Reply: a letter for each key: y done (or was complete), s stale generation: read Postgres again, o the sum of base and
-- unsynced operations would overflow: nothing changed, e not an entry.

local call, pcall, sub, find = redis.call, redis.pcall, string.sub, string.find
local out = {}

local function create(entry, tag, value, version, state)
  call('HSET', entry, 'v', value, 'n', version)
  if state ~= 'r' then call('HSET', entry, 'x', '1') end
  -- A key whose entry was deleted by hand may be dirty still.
  if not call('ZSCORE', tag .. ':dirty', sub(entry, #tag + 4)) then
    call('PEXPIRE', entry, state == '-' and ARGV[2] or ARGV[1])
  end
  return 'y'
end

-- e is v, n, u, e, p of the entry. u=1: value and version are counted from the base; u=2: the value was set or deleted
-- since, only the version is.
local function rebase(entry, e, value, version, state, lineage)
  local v, n, life, lives = e[1], e[2], e[4] or '', e[5] or ''
  local counts = e[3] == '1' -- from the base
  -- Since the restart; or since a copy of it came back that somebody had made. (A lower number alone proves nothing: after
  -- a failover it may come from a clock that is behind.)
  local untouched = sub(life, 1, 8) ~= incarnation or sub(life, 9) == lineage
  if untouched then lives = string.format('%s;%s,%s,%s', lives, sub(life, 9), v, n) end
  local had, had_n, last = '0', '0', ''
  for began, with, with_n in string.gmatch(lives, ';(%d+),([^,;]+),(%d+)') do
    if tonumber(began) <= tonumber(lineage) then
      had, had_n, last = with, with_n, began
      counts = with ~= 'set'
    end
  end
  call('HDEL', entry, 'u') -- a write that a full Redis lets pass, and the others after it: without a base, nothing drains
  if counts and not shift(entry, value, had) then
    call('HSET', entry, 'u', e[3])
    return 'o'
  end
  call('HINCRBY', entry, 'n', version)
  if had_n ~= '0' then call('HINCRBY', entry, 'n', '-' .. had_n) end
  if untouched and last ~= '' and last == sub(life, 9) then -- the row is what this entry has become
    if state == 'x' then call('HSET', entry, 'x', '1') else call('HDEL', entry, 'x') end
  end
  -- It keeps its number: no flush can have had it while the base was unknown.
  call('HSET', entry, 'bn', version)
  if counts then call('HSET', entry, 'bv', value) else call('HDEL', entry, 'bv') end
  -- A late flush of a life that the row does not have yet may still come.
  local later = {}
  for began, with, with_n in string.gmatch(e[5] or '', ';(%d+),([^,;]+),(%d+)') do
    if tonumber(began) > tonumber(lineage) and #with <= 15 and #value <= 15 and #had <= 15 then
      if counts and with ~= 'set' then with = string.format('%.0f', with + value - had) end
      later[#later + 1] = string.format(';%s,%s,%.0f', began, with, with_n + version - had_n)
    end
  end
  if #later > 0 then call('HSET', entry, 'p', table.concat(later)) else call('HDEL', entry, 'p') end
  return 'y'
end

for i = 1, (#ARGV - 2) / 5 do
  local entry, at = KEYS[i], 2 + (i - 1) * 5
  local gen, value, version, state = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local tag = sub(entry, 1, (find(entry, '}', 1, true)))
  local e = pcall('HMGET', entry, 'v', 'n', 'u', 'e', 'p')
  if e.err then
    if not find(e.err, 'WRONGTYPE', 1, true) then error(e.err, 0) end
    out[i] = 'e'
  elseif e[1] and not e[3] then
    out[i] = 'y'
  elseif call('GET', tag .. ':gen') ~= gen then
    out[i] = 's'
  elseif e[1] and not (find(e[1], '^%-?%d+$') and find(e[2] or '', '^%d+$')) then
    out[i] = 'e'
  elseif e[1] then
    out[i] = rebase(entry, e, value, version, state, ARGV[at + 5])
  else
    out[i] = create(entry, tag, value, version, state)
  end
end

return table.concat(out)

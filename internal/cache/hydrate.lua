-- hydrate.lua brings what Postgres has of some counters into their entries: it creates the entry of a cold key, and
-- gives its base to an entry that was written while the base was unknown (u). An entry that is complete is left alone.
--
-- The generation is that of the shard from before Postgres was asked. It changes with every ack, so when it is still
-- the same, no flush has been completed in between and what was read is what Postgres has. Without this check, a slow
-- reader could bring back an old state of a key that was meanwhile written, flushed and evicted.
--
-- KEYS[i]   entry {aw:07}:c:<key>
-- ARGV[1]   TTL of a created entry, ms
-- ARGV[2]   TTL of a created entry when Postgres has no row, ms
-- then for each key four: generation, value, version, state: "r" row, "x" tombstone, "-" no row (value, version "0")
--
-- Reply: a letter for each key: y done (or was complete), s stale generation: read Postgres again, o the sum of base and
-- unsynced operations would overflow: nothing changed, e not an entry.

local call, pcall, sub, find = redis.call, redis.pcall, string.sub, string.find
local out = {}

local function create(entry, value, version, state)
  call('HSET', entry, 'v', value, 'n', version)
  if state ~= 'r' then call('HSET', entry, 'x', '1') end
  call('PEXPIRE', entry, state == '-' and ARGV[2] or ARGV[1])
  return 'y'
end

-- u=1: value and version are counted from the base; u=2: the value was set or deleted since, only the version is.
local function rebase(entry, u, value, version, state)
  if u == '1' and state == 'r' then
    local sum = pcall('HINCRBY', entry, 'v', value)
    if type(sum) == 'table' then
      if find(sum.err, 'overflow', 1, true) then return 'o' end
      error(sum.err, 0)
    end
  end
  call('HINCRBY', entry, 'n', version)
  call('HDEL', entry, 'u')
  return 'y'
end

for i = 1, #KEYS do
  local entry, at = KEYS[i], 2 + (i - 1) * 4
  local gen, value, version, state = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local tag = sub(entry, 1, (find(entry, '}', 1, true)))
  local e = pcall('HMGET', entry, 'v', 'u')
  if e.err then
    out[i] = 'e'
  elseif e[1] and not e[2] then
    out[i] = 'y'
  elseif call('GET', tag .. ':gen') ~= gen then
    out[i] = 's'
  elseif e[1] then
    out[i] = rebase(entry, e[2], value, version, state)
  else
    out[i] = create(entry, value, version, state)
  end
end

return table.concat(out)

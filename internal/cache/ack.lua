-- ack.lua clears the dirty marks of keys whose state Postgres has committed: compare-and-clear, so a key that was
-- written since it was peeked stays dirty.
--
-- KEYS[1]  {aw:07}:dirty
-- ARGV[1]  when the keys were peeked, ms of Redis's clock: what is still unsynced was written after that
-- ARGV[2]  TTL of a clean entry, ms
-- then for each key three: key, the version that was committed ("" for a key whose entry was gone), the life that it is of
--
-- Reply: the keys that stay dirty because they were written meanwhile. Their entries note what was committed (field c), and
-- those who wait for Postgres to have a version are told on a channel that they may look (see progress.lua).
--
-- It needs no growth, so that flushing goes on in a Redis that is full.

local call, pcall = redis.call, redis.pcall
local dirty = KEYS[1]
local tag = string.sub(dirty, 1, (string.find(dirty, '}', 1, true)))
local has_dead = call('EXISTS', tag .. ':dead') == 1
local again, settled = {}, false

for i = 3, #ARGV, 3 do
  local key, committed, life = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local entry = tag .. ':c:' .. key
  -- Postgres took it: whatever it was refused for before is over. First, since a full Redis lets this write pass.
  if has_dead then call('HDEL', tag .. ':dead', key) end
  local e = pcall('HMGET', entry, 'n', 'u', 'e')
  local n, u = e[1], e[2]
  -- The version of an entry whose base is unknown counts from 0: it says nothing about what was committed. The same
  -- version of another life is another state.
  if n == committed and not u and (e[3] or '') == life then
    if call('ZREM', dirty, key) == 1 then call('PEXPIRE', entry, ARGV[2]) end
    call('HDEL', entry, 'e', 'bv', 'bn', 'p', 'c')
    settled = true
  elseif not e.err and not n and committed == '' then
    call('ZREM', dirty, key)
  elseif call('ZSCORE', dirty, key) then
    pcall('ZADD', dirty, 'XX', ARGV[1], key)
    if n and not u and life ~= '' and e[3] == life then
      pcall('HSET', entry, 'c', committed .. ' ' .. life) -- with the life: a later one counts from another state
      settled = true
    end
    again[#again + 1] = key
  end
end

-- A new generation: what was read from Postgres before this ack is too old to hydrate from. Deleting it serves as well,
-- since the next to need one makes another.
local t = call('TIME')
local set = pcall('SET', tag .. ':gen', string.format('%.0f', t[1] * 1000000 + t[2]))
if set.err then call('DEL', tag .. ':gen') end
if settled then pcall('PUBLISH', 'aw:acks', tag) end
return again

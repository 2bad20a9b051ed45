-- ack.lua clears the dirty marks of keys whose state Postgres has committed: compare-and-clear, so a key that was
-- written since it was peeked stays dirty.
--
-- KEYS[1]  {aw:07}:dirty
-- ARGV[1]  when the keys were peeked, ms of Redis's clock: what is still unsynced was written after that
-- ARGV[2]  TTL of a clean entry, ms
-- then for each key three: key, its entry as it was peeked and committed ("" if there was none), and what becomes of it now that
-- it is clean (or "": that is made out here). An entry that has changed since may still have the version and the life that
-- were committed: only what is noted beside them has changed then.
--
-- Reply: the keys that stay dirty because they were written meanwhile. Their entries note what was committed (field c), and
-- those who wait for Postgres to have a version are told on a channel that they may look (see progress.lua).
--
-- It needs no growth, so that flushing goes on in a Redis that is full.

local dirty = KEYS[1]
local tag = sub(dirty, 1, (find(dirty, '}', 1, true)))
local has_dead = call('EXISTS', tag .. ':dead') == 1
local again, settled = {}, false
-- A moment, and not a time from now: Redis would have to reckon it for each command that it writes to its log.
local expiry = fmt('%.0f', now() + ARGV[2])

-- What is to become of an entry that is not just what was committed; "" if there is nothing; nil if it stays dirty. The version of
-- an entry whose base is unknown counts from 0: it says nothing about what was committed. The same version of another
-- life is another state.
local function cleared(name, text, peeked)
  if not text then return peeked == '' and call('EXISTS', name) == 0 and '' or nil end
  local v, n, rest = split(text)
  local _, committed, more = split(peeked)
  if n and n == committed and not find(rest, ' u', 1, true) and match(rest, ' e(%S+)') == match(more, ' e(%S+)') then
    return v .. ' ' .. n .. (find(rest, ' x', 1, true) and ' x' or '')
  end
end

-- Notes what of an entry that was written meanwhile has been committed, for those who wait for it.
local function note(name, text, peeked)
  local e, was = text and decode(text), decode(peeked)
  if e and was and was.e and e.e == was.e and not e.u then
    e.c = was.n .. ',' .. was.e -- with the life: a later one counts from another state
    pcall('SET', name, encode(e))
    settled = true
  end
end

-- Takes care of the keys of ARGV[from], ARGV[from + 3] and so on, up to CHUNK of them.
local function ack(from, to)
  local keys, names = {}, {}
  for i = from, to, 3 do
    keys[#keys + 1], names[#names + 1] = ARGV[i], tag .. ':c:' .. ARGV[i]
  end
  -- Before anything is written: on a cluster whose slots move, it may fail.
  local texts = call('MGET', unpack(names))
  -- Postgres took them: whatever they were refused for before is over. First, since a full Redis lets this write pass.
  if has_dead then call('HDEL', tag .. ':dead', unpack(keys)) end
  local clean, becomes, stay = {}, {}, {}
  for i = 1, #names do
    local text, peeked, new = texts[i], ARGV[from + 3 * i - 2], ARGV[from + 3 * i - 1]
    if text ~= peeked or new == '' then new = cleared(names[i], text, peeked) end
    if new then
      clean[#clean + 1] = keys[i]
      becomes[#becomes + 1] = new
      names[#clean] = names[i] -- of those that are clean, in front
    else
      stay[#stay + 1] = { keys[i], names[i], text, peeked }
    end
  end
  if #clean > 0 then
    call('ZREM', dirty, unpack(clean)) -- first, as above
    settled = true
  end
  for i = 1, #clean do
    if becomes[i] ~= '' then call('SET', names[i], becomes[i], 'PXAT', expiry) end
  end
  for _, s in ipairs(stay) do
    if call('ZSCORE', dirty, s[1]) then
      pcall('ZADD', dirty, 'XX', ARGV[1], s[1])
      note(s[2], s[3], s[4])
      again[#again + 1] = s[1]
    end
  end
end

for from = 3, #ARGV, 3 * CHUNK do
  ack(from, math.min(from + 3 * CHUNK - 1, #ARGV))
end

-- A new generation: what was read from Postgres before this ack is too old to hydrate from.
renew_generation(tag)
if settled then pcall('PUBLISH', 'aw:acks', tag) end
return again

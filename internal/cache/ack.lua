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

local dirty = KEYS[1]
local tag = sub(dirty, 1, (find(dirty, '}', 1, true)))
local has_dead = call('EXISTS', tag .. ':dead') == 1
local again, settled = {}, false

-- Takes care of the keys of ARGV[from], ARGV[from + 3] and so on, up to CHUNK of them.
local function ack(from, to)
  local keys, names = {}, {}
  for i = from, to, 3 do
    keys[#keys + 1], names[#names + 1] = ARGV[i], tag .. ':c:' .. ARGV[i]
  end
  -- Postgres took them: whatever they were refused for before is over. First, since a full Redis lets this write pass.
  if has_dead then call('HDEL', tag .. ':dead', unpack(keys)) end
  local texts = call('MGET', unpack(names))
  local clean, rest = {}, {}
  for i = 1, #names do
    local text, committed, life = texts[i], ARGV[from + 3 * i - 2], ARGV[from + 3 * i - 1]
    local v, n, more
    if text then v, n, more = split(text) end
    -- The version of an entry whose base is unknown counts from 0: it says nothing about what was committed. The same
    -- version of another life is another state.
    if n == committed and not find(more, ' u', 1, true) and (match(more, ' e(%S+)') or '') == life then
      clean[#clean + 1] = keys[i]
      texts[i] = v .. ' ' .. n .. (find(more, ' x', 1, true) and ' x' or '')
    elseif not text and committed == '' and call('EXISTS', names[i]) == 0 then
      clean[#clean + 1] = keys[i]
    else
      rest[#rest + 1] = i
      texts[i] = false
    end
  end
  if #clean > 0 then
    call('ZREM', dirty, unpack(clean)) -- first, as above
    settled = true
  end
  for i, name in ipairs(names) do
    if texts[i] then call('SET', name, texts[i], 'PX', ARGV[2]) end
  end
  for _, i in ipairs(rest) do
    if call('ZSCORE', dirty, keys[i]) then
      pcall('ZADD', dirty, 'XX', ARGV[1], keys[i])
      local text = pcall('GET', names[i])
      local e = type(text) == 'string' and decode(text)
      local life = ARGV[from + 3 * i - 1]
      if e and not e.u and life ~= '' and e.e == life then
        e.c = ARGV[from + 3 * i - 2] .. ',' .. life -- with the life: a later one counts from another state
        pcall('SET', names[i], encode(e))
        settled = true
      end
      again[#again + 1] = keys[i]
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

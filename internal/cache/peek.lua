-- peek.lua reads the entries of dirty keys of one shard. Nothing is removed: only ack.lua does, after Postgres has them.
--
-- KEYS[1]  {aw:07}:dirty
-- ARGV[1]  how many keys at most, oldest first; or "0": the keys named in ARGV[5..]
-- ARGV[2]  with a limit: only keys dirty since before this time, ms of Redis's clock; "0": before now.
--          with names: "1" reads also keys that wait for a retry or are dead, "0" leaves them out
-- ARGV[3]  with a limit: who drains the shard. Another who has begun less than ARGV[4] ms ago is not disturbed
-- ARGV[4]  ms that the drain is taken for, from now
--
-- Reply: {now ms, generation} and then for each key three: key, its entry (see entry.lua; "m": there is none, "e": something
-- that is not even a string), and the time it became dirty. Or {now ms} alone when another is draining.

local dirty = KEYS[1]
local tag = sub(dirty, 1, (find(dirty, '}', 1, true)))
local limit = tonumber(ARGV[1])

-- No key is put aside for 3 h (10 min and two sweeps at most), so a time beyond that was set by a clock that was ahead.
local beyond = fmt('(%.0f', now() + 10800000)
local dead = '(4503599627370496'

local found = {} -- key, score, key, score ...
if limit > 0 then
  local owner = call('GET', tag .. ':drain')
  if owner and owner ~= ARGV[3] then return { now() } end
  -- A Redis that is full refuses this; two drains at once do no harm, only work twice.
  pcall('SET', tag .. ':drain', ARGV[3], 'PX', ARGV[4])
  local before = ARGV[2] == '0' and now() or ARGV[2]
  found = call('ZRANGEBYSCORE', dirty, '-inf', before, 'WITHSCORES', 'LIMIT', 0, limit)
  if #found < 2 * limit then
    for _, f in ipairs(call('ZRANGEBYSCORE', dirty, beyond, dead, 'WITHSCORES', 'LIMIT', 0, limit - #found / 2)) do
      found[#found + 1] = f
    end
  end
else
  for from = 5, #ARGV, CHUNK do
    local to = math.min(from + CHUNK - 1, #ARGV)
    local scores = call('ZMSCORE', dirty, unpack(ARGV, from, to))
    for i = from, to do
      local score = scores[i - from + 1]
      local due = score and (tonumber(score) <= tonumber(now())
        or tonumber(score) > now() + 10800000 and tonumber(score) < 4503599627370496)
      if score and (ARGV[2] == '1' or due) then
        found[#found + 1] = ARGV[i]
        found[#found + 1] = score
      end
    end
  end
end

local gen = call('GET', tag .. ':gen')
if not gen then
  gen = microseconds()
  pcall('SET', tag .. ':gen', gen)
end

local out = { now(), gen }
local prefix = tag .. ':c:'
for from = 1, #found, 2 * CHUNK do
  local names = {}
  for i = from, math.min(from + 2 * CHUNK - 1, #found), 2 do names[#names + 1] = prefix .. found[i] end
  local texts = call('MGET', unpack(names))
  for i = 1, #names do
    local at = from + 2 * (i - 1)
    local text = texts[i] or (call('EXISTS', names[i]) == 1 and 'e' or 'm') -- MGET is silent about what is no string
    if texts[i] == 'm' then text = 'e' end
    local to = #out
    out[to + 1], out[to + 2], out[to + 3] = found[at], text, found[at + 1]
  end
end
return out

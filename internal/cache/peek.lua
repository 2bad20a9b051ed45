-- peek.lua reads the entries of dirty keys of one shard. Nothing is removed: only ack.lua does, after Postgres has them.
--
-- KEYS[1]  {aw:07}:dirty
-- ARGV[1]  how many keys at most, oldest first; or "0": the keys named in ARGV[5..]
-- ARGV[2]  with a limit: only keys dirty since before this time, ms of Redis's clock; "0": before now.
--          with names: "1" reads also keys that wait for a retry or are dead, "0" leaves them out
-- ARGV[3]  with a limit: who drains the shard. Another who has begun less than ARGV[4] ms ago is not disturbed
-- ARGV[4]  ms that the drain is taken for, from now
--
-- Reply: {now ms, generation} and then for each key seven: key, v, n, flags (x deleted, u and its digit: base unknown, m: no
-- entry, e: not an entry), the time it became dirty, its life and base version (see apply.lua; "" where it has none). Or
-- {now ms} alone when another is draining.

local call, pcall, sub, fmt = redis.call, redis.pcall, string.sub, string.format
local dirty = KEYS[1]
local tag = sub(dirty, 1, (string.find(dirty, '}', 1, true)))
local t = call('TIME')
local now_ms = fmt('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local limit = tonumber(ARGV[1])

-- No key is put aside for 3 h (10 min and two sweeps at most), so a time beyond that was set by a clock that was ahead.
local beyond = fmt('(%.0f', now_ms + 10800000)
local dead = '(4503599627370496'

local keys = {} -- key, score, key, score ...
if limit > 0 then
  local owner = call('GET', tag .. ':drain')
  if owner and owner ~= ARGV[3] then return { now_ms } end
  -- A Redis that is full refuses this; two drains at once do no harm, only work twice.
  pcall('SET', tag .. ':drain', ARGV[3], 'PX', ARGV[4])
  local before = ARGV[2] == '0' and now_ms or ARGV[2]
  keys = call('ZRANGEBYSCORE', dirty, '-inf', before, 'WITHSCORES', 'LIMIT', 0, limit)
  if #keys < 2 * limit then
    for _, found in ipairs(call('ZRANGEBYSCORE', dirty, beyond, dead, 'WITHSCORES', 'LIMIT', 0, limit - #keys / 2)) do
      keys[#keys + 1] = found
    end
  end
else
  for i = 5, #ARGV do
    local score = call('ZSCORE', dirty, ARGV[i])
    local due = score and (tonumber(score) <= tonumber(now_ms)
      or tonumber(score) > now_ms + 10800000 and tonumber(score) < 4503599627370496)
    if score and (ARGV[2] == '1' or due) then
      keys[#keys + 1] = ARGV[i]
      keys[#keys + 1] = score
    end
  end
end

local gen = call('GET', tag .. ':gen')
if not gen then
  gen = fmt('%.0f', t[1] * 1000000 + t[2])
  pcall('SET', tag .. ':gen', gen)
end

local out = { now_ms, gen }
for i = 1, #keys, 2 do
  local e = pcall('HMGET', tag .. ':c:' .. keys[i], 'v', 'n', 'x', 'u', 'e', 'bn')
  local v, n, flags = '', '', ''
  if e.err then
    if not string.find(e.err, 'WRONGTYPE', 1, true) then error(e.err, 0) end
    flags = 'e'
  elseif not e[1] or not e[2] then
    flags = 'm'
  else
    v, n = e[1], e[2]
    if e[3] then flags = 'x' end
    if e[4] then flags = flags .. 'u' .. e[4] end
  end
  local at = #out
  out[at + 1], out[at + 2], out[at + 3], out[at + 4], out[at + 5] = keys[i], v, n, flags, keys[i + 1]
  out[at + 6], out[at + 7] = e[5] or '', e[6] or ''
end
return out

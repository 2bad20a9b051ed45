-- seal.lua takes a shard for a flush and says which epoch is to be flushed: the sealed one, or else the open one, which it seals.
--
-- KEYS[1]  {aw:07}:meta
-- KEYS[2]  {aw:07}:open
-- KEYS[3]  {aw:07}:sealed
-- KEYS[4]  {aw:07}:retry
-- KEYS[5]  {aw:07}:drain
-- ARGV[1]  who flushes; another who began less than ARGV[2] ms ago is not disturbed
-- ARGV[2]  ms that the shard is taken for, from now
-- ARGV[3]  the open epoch is left alone while its first key is younger than this, ms, unless it has ARGV[4] keys
-- ARGV[4]  0: that many do not matter
--
-- Reply: state, now (ms), ID of the sealed epoch, first (both in base 36), since when it has keys (ms), how many, and how many
-- set-aside keys are due. The state: "sealed" now; "found" sealed before; "none": there is nothing to flush; "early": the open
-- epoch is too young (since is that of the open epoch then); "busy": another has the shard. The shard is taken with "sealed" and
-- "found" only.

local owner = call('GET', KEYS[5])
local now = milliseconds()
if owner and owner ~= ARGV[1] then return { 'busy', now, '0', '0', '0', 0, 0 } end

local s = enter(KEYS[1])
local due = call('ZCOUNT', KEYS[4], '-inf', now)
local state = 'found'
local keys = call('SCARD', KEYS[3])
if keys == 0 then
  keys = call('SCARD', KEYS[2])
  if keys == 0 then return { 'none', now, '0', base36(s.first), '0', 0, due } end
  local most = tonumber(ARGV[4])
  if now - (s.since or now) < tonumber(ARGV[3]) and (most == 0 or keys < most) then
    return { 'early', now, '0', base36(s.first), s.since or now, keys, due }
  end
  call('RENAME', KEYS[2], KEYS[3])
  call('HSET', KEYS[1], 'sealed', s.open, 'sealed_since', s.since or now)
  call('HDEL', KEYS[1], 'open_since')
  renew(s)
  state = 'sealed'
end
call('SET', KEYS[5], ARGV[1], 'PX', ARGV[2])
local m = call('HMGET', KEYS[1], 'sealed', 'sealed_since')
if not m[1] then -- somebody has removed it: any ID will do that is not older than the epochs of the keys
  m[1] = s.open
  call('HSET', KEYS[1], 'sealed', s.open)
  renew(s)
end
return { state, now, m[1], base36(s.first), m[2] or now, keys, due }

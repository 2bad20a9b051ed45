-- seal.lua takes a shard for a flush and says which epoch is to be flushed: the sealed one, or else the open one, which it seals.
--
-- KEYS[1]  {aw:07}:meta
-- KEYS[2]  {aw:07}:open
-- KEYS[3]  {aw:07}:sealed
-- KEYS[4]  {aw:07}:retry
-- KEYS[5]  {aw:07}:drain
-- KEYS[6]  {aw:07}:dead
-- ARGV[1]  who flushes; another who began less than ARGV[2] ms ago is not disturbed
-- ARGV[2]  ms that the shard is taken for, from now
-- ARGV[3]  the open epoch is left alone while its first key is younger than this, ms, unless it has ARGV[4] keys, or Redis's
--          clock has been set back since that key was written
-- ARGV[4]  0: that many do not matter
--
-- Reply: state, now (ms), ID of the sealed epoch, first (both in base 36), since when it has keys (ms), how many, how many
-- set-aside keys are due, and when the first of these is or was (ms; "0": none is set aside). The state: "sealed" now; "found"
-- sealed before; "none": there is nothing to flush; "early": the open epoch is too young (since is that of the open epoch then);
-- "busy": another has the shard. The shard is taken with "sealed" and "found" only.

local owner = call('GET', KEYS[5])
local now = milliseconds()
if owner and owner ~= ARGV[1] then return { 'busy', now, '0', '0', '0', 0, 0, '0' } end

local s = epochs(KEYS[1], call('GET', KEYS[1]))
free(KEYS[6])
save(s)
local due = call('ZCOUNT', KEYS[4], '-inf', now)
local next_due = call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2] or '0'
local state = 'found'
local keys = call('SCARD', KEYS[3])
-- step: found
if keys == 0 and s.sealed == '0' then -- a sealed epoch all of whose keys have been dropped is still to be committed
  keys = call('SCARD', KEYS[2])
  if keys == 0 then return { 'none', now, '0', s.first_id, '0', 0, due, next_due } end
  local age, most = s.since ~= '0' and now - s.since or math.huge, tonumber(ARGV[4])
  if age >= 0 and age < tonumber(ARGV[3]) and (most == 0 or keys < most) then
    return { 'early', now, '0', s.first_id, s.since, keys, due, next_due }
  end
  call('RENAME', KEYS[2], KEYS[3])
  s.sealed, s.sealed_since, s.since = s.open, s.since ~= '0' and s.since or now, '0'
  renew(s) -- step: renew
  state = 'sealed'
elseif s.sealed == '0' then -- somebody has removed it: any ID will do that is not older than the epochs of the keys
  s.sealed, s.sealed_since = s.open, now
  renew(s)
end
save(s)
call('SET', KEYS[5], ARGV[1], 'PX', ARGV[2])
return { state, now, s.sealed, s.first_id, s.sealed_since, keys, due, next_due }

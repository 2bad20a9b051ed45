-- seal.lua takes a shard for a flush and returns the epoch to flush: the sealed one if there is one, else the open one, which it seals.
--
-- KEYS[1]  {aw:07}:meta
-- KEYS[2]  {aw:07}:open
-- KEYS[3]  {aw:07}:sealed
-- KEYS[4]  {aw:07}:retry
-- KEYS[5]  {aw:07}:drain
-- KEYS[6]  {aw:07}:dead
-- ARGV[1]  the owner
-- ARGV[2]  the lease in ms, from now
-- ARGV[3]  minimum age in ms: an open epoch whose first key is younger is left alone, unless it has ARGV[4] keys, or Redis's clock has
--          been set back since that key was written
-- ARGV[4]  number of keys; 0: whatever the number
--
-- Reply: state, now (ms), ID of the sealed epoch, first (both in base 36), when its first key was written (ms), its number of keys, the
-- number of set-aside keys that are due, and when the first set-aside key is or was due (ms; "0": there is none). States: "sealed" it has
-- sealed the open epoch; "found" it was sealed before; "none" nothing to flush; "early" the open epoch is too young (the times are from the
-- open epoch); "busy" another owner has the shard. Only "sealed" and "found" take the shard.

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
if keys == 0 and s.sealed == '0' then -- an empty sealed epoch still has to be committed
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
elseif s.sealed == '0' then -- its ID was lost: any ID will do if it is not older than the epochs of its keys
  s.sealed, s.sealed_since = s.open, now
  renew(s)
end
save(s)
call('SET', KEYS[5], ARGV[1], 'PX', ARGV[2])
return { state, now, s.sealed, s.first_id, s.sealed_since, keys, due, next_due }

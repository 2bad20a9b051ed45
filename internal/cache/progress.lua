-- progress.lua says how far keys of one shard have got on their way to Postgres. It changes nothing.
--
-- KEYS[1]  {aw:07}:dirty
-- ARGV     the keys
--
-- Reply: the beginning of master_replid, which is new after each restart and each promotion of Redis, and then for each key
-- one string: "-" for no entry, else its version, and what is known of it:
--   c             clean
--   d <version> <base> <life>   dirty; this version of it, or "0", has been committed; its life and the version before that
--   u             dirty, and the version counts from an unknown base
-- "- d" is a dirty key whose entry is not there.

local call, pcall, find, sub = redis.call, redis.pcall, string.find, string.sub
local dirty = KEYS[1]
local tag = sub(dirty, 1, (find(dirty, '}', 1, true)))
local out = { string.match(call('INFO', 'replication'), 'master_replid:(%x%x%x%x%x%x%x%x)') or '00000000' }

for i = 1, #ARGV do
  local e = pcall('HMGET', tag .. ':c:' .. ARGV[i], 'n', 'u', 'e', 'c', 'bn')
  if e.err and not find(e.err, 'WRONGTYPE', 1, true) then error(e.err, 0) end
  local n, u, life, noted = e[1], e[2], e[3], e[4]
  local line
  if not n then
    line = call('ZSCORE', dirty, ARGV[i]) and '- d 0' or '- c'
  elseif u then
    line = n .. ' u'
  elseif not call('ZSCORE', dirty, ARGV[i]) then
    line = n .. ' c'
  else
    local at = noted and find(noted, ' ', 1, true)
    local committed = at and sub(noted, at + 1) == life and sub(noted, 1, at - 1) or '0'
    line = n .. ' d ' .. committed .. ' ' .. (e[5] or '0') .. ' ' .. (life or '')
  end
  out[i + 1] = line
end
return out

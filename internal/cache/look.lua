-- look.lua reads entries as they are, dirty or clean, together with their marks. It changes nothing.
--
-- KEYS[i]  entry {aw:07}:c:<key>; on a cluster dirty and dead of the shard follow (see apply.lua)
-- ARGV[1]  how many entries
--
-- Reply: for each entry eight: its key, v, n, flags, score, life and base as in peek.lua's, with a score of 0 where it is not
-- dirty, and "1" where it is dead, else "0".

local call, pcall, sub, find = redis.call, redis.pcall, string.sub, string.find
local has_dead = {}
local out = {}
for i = 1, tonumber(ARGV[1]) do
  local entry = KEYS[i]
  local close = find(entry, '}', 1, true)
  local tag, key = sub(entry, 1, close), sub(entry, close + 4)
  if has_dead[tag] == nil then has_dead[tag] = call('EXISTS', tag .. ':dead') == 1 end
  local e = pcall('HMGET', entry, 'v', 'n', 'x', 'u', 'e', 'bn')
  local v, n, flags = '', '', ''
  if e.err then
    if not find(e.err, 'WRONGTYPE', 1, true) then error(e.err, 0) end
    flags = 'e'
  elseif not e[1] or not e[2] then
    flags = call('EXISTS', entry) == 1 and 'e' or 'm'
  else
    v, n = e[1], e[2]
    flags = (e[3] and 'x' or '') .. (e[4] and 'u' .. e[4] or '')
  end
  local at = #out
  out[at + 1], out[at + 2], out[at + 3], out[at + 4] = key, v, n, flags
  out[at + 5] = call('ZSCORE', tag .. ':dirty', key) or '0'
  out[at + 6], out[at + 7] = e[5] or '', e[6] or ''
  out[at + 8] = has_dead[tag] and call('HEXISTS', tag .. ':dead', key) == 1 and '1' or '0'
end
return out

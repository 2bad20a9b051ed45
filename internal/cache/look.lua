-- look.lua reads entries as they are, dirty or clean, together with their marks. It changes nothing.
--
-- KEYS[i]  entry {aw:07}:c:<key>; on a cluster dirty and dead of the shard follow (see apply.lua)
-- ARGV[1]  how many entries
--
-- Reply: for each entry four: its key, the entry as in peek.lua's reply, its score, 0 where it is not dirty, and "1" where it
-- is dead, else "0".

local has_dead = {}
local out = {}
for i = 1, tonumber(ARGV[1]) do
  local name = KEYS[i]
  local close = find(name, '}', 1, true)
  local tag, key = sub(name, 1, close), sub(name, close + 4)
  if has_dead[tag] == nil then has_dead[tag] = call('EXISTS', tag .. ':dead') == 1 end
  local text = pcall('GET', name)
  if not text then
    text = 'm'
  elseif text == 'm' then
    text = 'e'
  elseif type(text) == 'table' then
    if not find(text.err, 'WRONGTYPE', 1, true) then error(text.err, 0) end
    text = 'e'
  end
  local at = #out
  out[at + 1], out[at + 2] = key, text
  out[at + 3] = call('ZSCORE', tag .. ':dirty', key) or '0'
  out[at + 4] = has_dead[tag] and call('HEXISTS', tag .. ':dead', key) == 1 and '1' or '0'
end
return out

-- stray.lua removes the records of counters whose entries somebody deleted by hand. Their writes are lost, so the records lead nowhere.
--
-- KEYS[1]  {aw:07}:hn
-- then two for each counter: its entry, and its list {aw:07}:h:<key>
--
-- Reply: the number of removed records. It leaves counters with an entry alone.

local call, pcall = redis.call, redis.pcall
local count, removed = tonumber(call('GET', KEYS[1]) or '0') or 0, 0
for i = 2, #KEYS, 2 do
  local has = call('EXISTS', KEYS[i]) == 0 and pcall('LLEN', KEYS[i + 1])
  if type(has) == 'number' and has > 0 then
    call('DEL', KEYS[i + 1])
    removed = removed + has
  end
end
if removed > 0 then
  count = count - removed
  if count > 0 then call('SET', KEYS[1], string.format('%.0f', count)) else call('DEL', KEYS[1]) end
end
return removed

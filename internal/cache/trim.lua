-- trim.lua removes records that Postgres has. It removes a record only together with all before it, and only if it is exactly the one
-- that was flushed. A Redis that was restored may have others by now, and reconcile.lua renumbers them.
--
-- KEYS[1]    {aw:07}:hn
-- KEYS[i+1]  list {aw:07}:h:<key>
-- ARGV[i]    the last record that Postgres has
--
-- Reply: the number of removed records.

local call, pcall, match = redis.call, redis.pcall, string.match
local removed = 0
for i = 1, #ARGV do
  local list = KEYS[i + 1]
  local head = pcall('LINDEX', list, 0)
  if type(head) == 'string' then
    local at = tonumber(match(ARGV[i], '^%d+')) - tonumber(match(head, '^%d+') or '0')
    if at >= 0 and call('LINDEX', list, at) == ARGV[i] then -- step: equal
      call('LTRIM', list, at + 1, -1)
      removed = removed + at + 1
    end
  end
end
if removed > 0 then
  local count = (tonumber(call('GET', KEYS[1]) or '0') or 0) - removed
  if count > 0 then call('SET', KEYS[1], string.format('%.0f', count)) else call('DEL', KEYS[1]) end
end
return removed

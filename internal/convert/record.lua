-- record.lua moves idempotency records of layout 2 from their old shard to their new one, which may be the same. The caller has
-- read and translated them.
--
-- ARGV[1]  "move": in one atomic step; "put": the caller removes the old records afterwards, and existing new records are kept
-- ARGV[2]  the token of the conversion
-- then three for each record: its old text; its new text; its TTL, ms (0: none)
-- KEYS     conversion, dead of the new shard; then for each record its new name; then, to move, for each its old name
--
-- Reply: how many were written. An error "CONVERTED" if the conversion is over.

local move, count = ARGV[1] == 'move', (#ARGV - 2) / 3
if call('GET', KEYS[1]) ~= ARGV[2] then return redis.error_reply('CONVERTED the conversion is over') end
free(KEYS[2])
local done = 0
for i = 1, count do
  local was, text, ttl, new, old = ARGV[3 * i], ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2]), KEYS[2 + i], KEYS[2 + count + i]
  local free = not move and call('EXISTS', new) == 0
  if free or (move and pcall('GET', old) == was) then
    if move then call('DEL', old) end
    if ttl > 0 then call('SET', new, text, 'PX', ARGV[3 * i + 2]) else call('SET', new, text) end
    done = done + 1
  end
end
return done

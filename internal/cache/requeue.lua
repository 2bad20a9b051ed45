-- requeue.lua puts keys that were set aside into the open epoch, as if they had just been written: the next flush takes them
-- up. A retry that is under way finds nothing left to do.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:open
-- KEYS[3]    {aw:07}:retry
-- KEYS[4]    {aw:07}:dead
-- ARGV[1]    "retry": those of the keys that wait; "dead": those that are dead; "due": up to ARGV[2] of those that wait and
--            whose time has come, without names
-- ARGV[i]    from 2 on: key
--
-- Reply: the keys that were requeued. Done again, it does nothing.
--
-- On a cluster the entries, whose names are made here, have the tag of the keys that are declared.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
free(KEYS[4])
local keys, entries = {}, sub(KEYS[1], 1, -5) .. 'c:'
if ARGV[1] == 'due' then
  keys = call('ZRANGEBYSCORE', KEYS[3], '-inf', milliseconds(), 'LIMIT', 0, ARGV[2])
else
  for i = 2, #ARGV do keys[i - 1] = ARGV[i] end
end
local done = {}
for _, key in ipairs(keys) do
  local removed
  if ARGV[1] == 'dead' then removed = call('HDEL', KEYS[4], key) else removed = call('ZREM', KEYS[3], key) end
  if removed == 1 then
    local name = entries .. key
    local e = load(name)
    if e then
      e.a, e.epoch = nil, s.open
      put(name, e)
    end
    done[#done + 1] = key
  end
end
rejoin(s, KEYS[2], done)
save(s)
return done

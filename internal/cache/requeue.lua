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
-- Reply: the keys that were requeued. Done again, it does nothing. A clean entry stays clean: somebody deleted the one that was
-- set aside, and it came from Postgres again.
--
-- On a cluster the entries, whose names are made here, have the tag of the keys that are declared.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
local keys, entries = {}, sub(KEYS[1], 1, -5) .. 'c:'
if ARGV[1] == 'due' then
  keys = call('ZRANGEBYSCORE', KEYS[3], '-inf', milliseconds(), 'LIMIT', 0, ARGV[2])
else
  for i = 2, #ARGV do keys[i - 1] = ARGV[i] end
end

-- Everything is read before the first write, and a key leaves the place where it was last: an error on the way strands none.
local dead = ARGV[1] == 'dead'
local removed, done, names, changed, seen = {}, {}, {}, {}, {}
for _, key in ipairs(keys) do
  local listed
  if dead then listed = call('HEXISTS', KEYS[4], key) == 1 else listed = call('ZSCORE', KEYS[3], key) end
  if listed and not seen[key] then
    seen[key] = true
    removed[#removed + 1] = key
    local e = load(entries .. key)
    if not e or is_dirty(s, e) then done[#done + 1] = key end
    if e and is_dirty(s, e) then
      e.a, e.epoch = nil, s.open -- step: epoch
      names[#names + 1], changed[#changed + 1] = entries .. key, e
    end
  end
end
free(KEYS[4])
rejoin(s, KEYS[2], done) -- step: join
-- A restart may have ended their lives, which plain.lua does not look for in an entry of the open epoch: so that gets another ID.
if #names > 0 then renew(s) end -- step: renew
save(s)
for i = 1, #names do put(names[i], changed[i]) end
if dead then all('HDEL', KEYS[4], removed) else all('ZREM', KEYS[3], removed) end
return done

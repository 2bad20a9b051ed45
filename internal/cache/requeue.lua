-- requeue.lua puts set-aside keys into the open epoch, as if they had just been written, so that the next flush takes them. A retry in
-- progress finds nothing left to do.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:open
-- KEYS[3]    {aw:07}:retry
-- KEYS[4]    {aw:07}:dead
-- ARGV[1]    "retry": the given keys that wait for a retry; "dead": the given keys that are dead; "due": up to ARGV[2] keys that are
--            due for a retry
-- ARGV[i]    from 2 on: key
--
-- Reply: the requeued keys. Repeating it does nothing. A clean entry stays clean: the set-aside one was deleted by hand, and has been
-- hydrated again.
--
-- The script builds the names of entries. On a cluster they have the hash tag of the declared keys.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
local keys, entries = {}, sub(KEYS[1], 1, -5) .. 'c:'
if ARGV[1] == 'due' then
  keys = call('ZRANGEBYSCORE', KEYS[3], '-inf', milliseconds(), 'LIMIT', 0, ARGV[2])
else
  for i = 2, #ARGV do keys[i - 1] = ARGV[i] end
end

-- Everything is read before the first write, and keys leave retry or dead last: an error in the middle strands none.
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
-- A restart may have ended their lineages. plain.lua does not check this in entries of the open epoch, so the epoch gets a new ID.
if #names > 0 then renew(s) end -- step: renew
save(s)
for i = 1, #names do put(names[i], changed[i]) end
if dead then all('HDEL', KEYS[4], removed) else all('ZREM', KEYS[3], removed) end
return done

-- aside.lua sets keys aside: Postgres refused them, or their rows are locked by another transaction. They stay dirty and still accept
-- writes, but a write no longer puts them into the open epoch.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:retry
-- KEYS[3]    {aw:07}:dead
-- KEYS[i+3]  entry {aw:07}:c:<key>
-- ARGV[1]    ms from now until a flush may take them; "dead": no flush may
-- ARGV[2]    with "dead": the note, JSON
-- ARGV[i+2]  key
--
-- Reply: the number of keys set aside. It ignores keys that are clean or have no entry.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
free(KEYS[3])
save(s)
local done = 0
for i = 3, #ARGV do
  local key, name = ARGV[i], KEYS[i + 1]
  local e, corrupt = load(name)
  if corrupt or (e and is_dirty(s, e)) then
    local dead = ARGV[1] == 'dead'
    if dead then
      call('HSET', KEYS[3], key, ARGV[2])
    else
      call('ZADD', KEYS[2], fmt('%.0f', milliseconds() + ARGV[1]), key)
    end
    if e and not e.a then
      e.a = true -- step: flag
      put(name, e)
    end
    if dead then call('ZREM', KEYS[2], key) else call('HDEL', KEYS[3], key) end
    done = done + 1
  end
end
return done

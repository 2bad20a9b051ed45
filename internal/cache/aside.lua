-- aside.lua sets keys aside that Postgres refused, or whose rows somebody else holds locked: they stay dirty and go on taking
-- writes, but these do not put them into the open epoch any more.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:retry
-- KEYS[3]    {aw:07}:dead
-- KEYS[i+3]  entry {aw:07}:c:<key>
-- ARGV[1]    ms from now until a flush may take them up; "dead": never
-- ARGV[2]    with "dead": what is known of them, JSON
-- ARGV[i+2]  key
--
-- Reply: how many were set aside. Keys that are clean, or have no entry, are left alone.

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

-- settle.lua takes keys back that were set aside, once Postgres has committed their entries as they were read.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:open
-- KEYS[3]    {aw:07}:sealed
-- KEYS[4]    {aw:07}:retry
-- KEYS[5]    {aw:07}:dead
-- KEYS[i+5]  entry {aw:07}:c:<key>
-- ARGV[1]    TTL of a clean entry, ms
-- then two for each key: the key, and its entry as it was committed ("" if there was none)
--
-- An unchanged entry becomes clean: it gets epoch 0, because its key need not be in the set of its epoch. The open epoch gets a new ID, so
-- that the key's next lineage has another number. An entry written meanwhile joins the open epoch, as in requeue.lua.
--
-- Reply: the number of keys that became clean.
--
-- Everything is read before the first write, and keys leave retry last: an error in the middle (a slot that moves to another node of a
-- cluster) strands none.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
local settled, clean, joining, names, entries = {}, {}, {}, {}, {}
for i = 1, #KEYS - 5 do
  local key, name = ARGV[2 * i], KEYS[i + 5]
  local e, corrupt, text = load(name)
  if not corrupt and (not e or e.a) then
    settled[#settled + 1] = key
    if e and text == ARGV[2 * i + 1] then -- step: compare
      clean[#clean + 1] = key
      e = { v = e.v, n = e.n, x = e.x, epoch = '0', l = checked_if_new(s, e) } -- step: clean
    elseif e then
      joining[#joining + 1] = key
      e.a, e.epoch = nil, s.open -- step: written
    end
    if e then names[#names + 1], entries[#entries + 1] = name, e end
  end
end
if #settled == 0 then return 0 end

free(KEYS[5])
rejoin(s, KEYS[2], joining)
renew(s) -- step: renew
save(s)
for i = 1, #names do put(names[i], entries[i], entries[i].epoch == '0' and ARGV[1] or nil) end
all('SREM', KEYS[2], clean)
all('SREM', KEYS[3], clean)
all('ZREM', KEYS[4], settled)
all('HDEL', KEYS[5], settled)
if #clean > 0 then pcall('PUBLISH', match(KEYS[1], '^{(.-)aw:%d+}') .. 'aw:acks', sub(KEYS[1], 1, -6)) end
return #clean

-- repair.lua repairs entries that differ from their rows: compare-and-change, so that one which was written, or flushed, since
-- it was read is left alone.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:open
-- KEYS[3]    {aw:07}:retry
-- KEYS[4]    {aw:07}:dead
-- KEYS[i+4]  entry {aw:07}:c:<key>
-- ARGV[1]    "mark": it joins the open epoch, so that a flush brings it to Postgres
--            "drop": it is removed, so that the next to need it reads Postgres
-- then for each key two: key, and the entry as it was read
--
-- Reply: a letter for each key: y done, w not: it is not what was read, or waits for its retry or a redrive.
--
-- SADD comes before the entries are written, so a Redis that is full refuses to mark, as a whole. It does not refuse to drop.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
local out, joining, marked, dropped = {}, {}, {}, {}
for i = 1, #KEYS - 4 do
  local name, key = KEYS[i + 4], ARGV[2 * i]
  local e, _, text = load(name)
  if not e or text ~= ARGV[2 * i + 1] or call('ZSCORE', KEYS[3], key) or call('HEXISTS', KEYS[4], key) == 1 then
    out[i] = 'w'
  elseif ARGV[1] == 'drop' and is_dirty(s, e) then
    out[i] = 'w'
  elseif ARGV[1] == 'drop' then
    dropped[#dropped + 1] = name
    out[i] = 'y'
  else
    if not is_dirty(s, e) then -- whatever row there is, an older version of it may be replaced
      e.l, e.b, e.w, e.p = s.open, sum(e.n, '0', '1'), nil, nil
      if byte(e.b) == 45 then e.b = '0' end
    end
    e.a, e.epoch = nil, s.open
    joining[#joining + 1] = key
    marked[#marked + 1] = name
    marked[#marked + 1] = encode(e)
    out[i] = 'y'
  end
end
if #dropped > 0 then
  -- What was read from Postgres before may be as old as the entry was.
  call('UNLINK', unpack(dropped))
  renew(s)
end
rejoin(s, KEYS[2], joining)
if #joining > 0 then renew(s) end -- see requeue.lua
save(s)
if #marked > 0 then call('MSET', unpack(marked)) end
return table.concat(out)

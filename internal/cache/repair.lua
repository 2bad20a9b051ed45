-- repair.lua repairs entries that differ from their rows. It leaves entries alone that were written or flushed since they were read.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:open
-- KEYS[3]    {aw:07}:retry
-- KEYS[4]    {aw:07}:dead
-- KEYS[i+4]  entry {aw:07}:c:<key>
-- ARGV[1]    "mark": put it into the open epoch, so that a flush writes it to Postgres
--            "drop": remove it, so that its next use reads Postgres
-- then two for each key: the key, and its entry as it was read
--
-- Reply: a letter for each key: y done; w not done: it has changed, or is set aside or dead.
--
-- SADD comes before the entries are written, so a full Redis refuses "mark" as a whole. It does not refuse "drop".

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
    if not is_dirty(s, e) then -- it may replace any older version of the row
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
  -- Rows read from Postgres before may be as old as the entry was, and must not be hydrated.
  call('UNLINK', unpack(dropped))
  renew(s)
end
rejoin(s, KEYS[2], joining)
if #joining > 0 then renew(s) end -- see requeue.lua
save(s)
if #marked > 0 then call('MSET', unpack(marked)) end
return table.concat(out)

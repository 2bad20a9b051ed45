-- reconcile.lua repairs entries of a Redis that has lost its latest writes: it restarted from an older snapshot, or a lagging replica was
-- promoted, so Postgres has writes that this Redis lacks. It adds the writes since then to the row.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:open
-- KEYS[3]    {aw:07}:sealed
-- KEYS[4]    {aw:07}:retry
-- KEYS[5]    {aw:07}:dead
-- KEYS[i+5]  entry {aw:07}:c:<key>
-- ARGV[1]    TTL of a clean entry, ms
-- then eight for each key: key, what to do, its lineage (base 36) and base version as they were read; value, version, deleted ("1" or "0")
-- and lineage (decimal) of the row. What to do:
--   "m"  merge: the row has writes that this entry lacks. The entry becomes the row plus everything added since the last lineage that the
--        row has, or the value set since; likewise the version. It begins a new lineage and stays dirty. An entry without writes since a
--        restart, whose lineages the row has all, becomes the row.
--   "a"  adopt: the row is a later state of the same lineage, so the entry becomes the row, and clean.
--
-- Reply: a letter for each key: y done; w not done: the entry has changed since it was read; o not done: the sum would overflow.

local s = epochs(KEYS[1], call('GET', KEYS[1]))

-- had and had_n: value and version of the entry at the end of the last lineage that the row has, or before the first; had is "set" if the
-- value was set since. The current lineage has ended if it is from before a restart; otherwise the row cannot have it.
local function merge(name, key, e, value, version, deleted, lineage)
  local had, had_n, ended, last = e.w or 'set', e.b, e.p or '', nil
  if number(e.l) < s.first then ended = fmt('%s;%s,%s,%s', ended, e.l, e.v, e.n) end
  local kept, v, n = {}, e.v, e.n
  for id, with, with_n in gmatch(ended, ';(%w+),([^,;]+),(%d+)') do
    if number(id) == lineage and tonumber(version) < tonumber(with_n) then
      had = nil -- the row is an earlier state of that lineage: it is not ahead and may be replaced
      break
    end
    if number(id) <= lineage then had, had_n, last = with, with_n, id end -- step: ended lineages
  end
  if had then
    if had ~= 'set' then v = sum(v, value, had) end -- step: base
    n = sum(n, version, had_n)
    if not v or not n then return 'o' end
    -- A flush from before the restart may still write a lineage that the row does not have.
    for id, with, with_n in gmatch(ended, ';(%w+),([^,;]+),(%d+)') do
      if number(id) > lineage then
        if with ~= 'set' and had ~= 'set' then with = sum(with, value, had) end
        if with then kept[#kept + 1] = fmt(';%s,%s,%s', id, with, sum(with_n, version, had_n)) end
      end
    end
    e.p = #kept > 0 and table.concat(kept) or nil -- step: keep
    e.w = had ~= 'set' and value or nil
    if last == e.l then e.x = deleted == '1' or nil end -- nothing was written since: the entry becomes the row
  else
    e.p = ended
    e.w = e.w and value
    had, had_n = value, version
  end
  renew(s)
  if e.h then renumber(name, had, had_n, version, value, s.open) end -- step: history
  e.v, e.n, e.b, e.l, e.epoch = v, n, version, s.open, s.open
  if not e.a then rejoin(s, KEYS[2], { key }) end
  save(s) -- first: an error must not leave an entry in an unknown epoch
  put(name, e)
  return 'y'
end

local function adopt(name, key, e, value, version, deleted, has)
  -- step: adopt
  if e.h then drop_records(name, has) end
  renew(s) -- it becomes clean without a commit, so its next lineage needs another number
  save(s)
  put(name, { v = value, n = version, epoch = '0', l = checked_if_new(s, e), x = deleted == '1' or nil }, ARGV[1])
  call('SREM', KEYS[2], key)
  call('SREM', KEYS[3], key)
  call('ZREM', KEYS[4], key)
  call('HDEL', KEYS[5], key)
  return 'y'
end

-- Everything is read before the first write: an error in the middle would leave an entry that disagrees with its records.
local out, entries, lengths = {}, {}, {}
for i = 1, #KEYS - 5 do
  local name = KEYS[i + 5]
  local e = load(name)
  entries[i] = e or false
  if e and e.h then lengths[i] = length(name) or error('WRONGTYPE another program wrote to ' .. list_of(name), 0) end
end

free(KEYS[5])
for i = 1, #KEYS - 5 do
  local name, at = KEYS[i + 5], 8 * i - 7
  local key, what, own, base = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local value, version, deleted, lineage = ARGV[at + 5], ARGV[at + 6], ARGV[at + 7], tonumber(ARGV[at + 8])
  local e = entries[i]
  if not e or e.u or e.l ~= own or e.b ~= base then -- step: compare
    out[i] = 'w'
  elseif what == 'm' then
    out[i] = merge(name, key, e, value, version, deleted, lineage)
  elseif tonumber(e.n) < tonumber(version) then -- step: adopted
    out[i] = adopt(name, key, e, value, version, deleted, lengths[i])
  else
    out[i] = 'w'
  end
end
save(s)
save_lists()
return table.concat(out)

-- reconcile.lua repairs entries of a Redis that lost its tail: it came back (from an older snapshot, or as a replica that
-- lagged) without writes that Postgres has. What was written since it came back is put on top of what Postgres has.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:open
-- KEYS[3]    {aw:07}:sealed
-- KEYS[4]    {aw:07}:retry
-- KEYS[5]    {aw:07}:dead
-- KEYS[i+5]  entry {aw:07}:c:<key>
-- ARGV[1]    TTL of a clean entry, ms
-- then for each key eight: key, what to do, its life (base 36) and base version as they were read; value, version, deleted ("1",
-- "0") and lineage (decimal) of Postgres's row. What to do:
--   "m"  merge: the row has writes that this entry does not know. The value becomes that of the row and what was added since
--        the last life that the row has, or what was set since; likewise the version. It begins a new life and stays dirty.
--        But an entry that was not written since a restart, and whose lives the row has all of, is adopted.
--   "a"  adopt: the row is a later state of this very life, so the entry becomes the row, and clean.
--
-- Reply: a letter for each key: y done, w not: it has moved on since it was read; o not: the sum would overflow.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
free(KEYS[5])

-- What the row has of the entry: value ("set" where the value was set since) and version at the end of its last life that the
-- row has, or before the first. The present life is over if it is from before a restart; else the row cannot have it.
local function merge(name, key, e, value, version, deleted, lineage)
  local had, had_n, lives, last = e.w or 'set', e.b, e.p or '', nil
  if number(e.l) < s.first then lives = fmt('%s;%s,%s,%s', lives, e.l, e.v, e.n) end
  local kept, v, n = {}, e.v, e.n
  for life, with, with_n in gmatch(lives, ';(%w+),([^,;]+),(%d+)') do
    if number(life) == lineage and tonumber(version) < tonumber(with_n) then
      had = nil -- the row is that life before its end: not ahead, so it may be replaced
      break
    end
    if number(life) <= lineage then had, had_n, last = with, with_n, life end -- step: lives
  end
  if had then
    if had ~= 'set' then v = sum(v, value, had) end -- step: base
    n = sum(n, version, had_n)
    if not v or not n then return 'o' end
    -- A flush of a life that the row does not have may still come from before the restart.
    for life, with, with_n in gmatch(lives, ';(%w+),([^,;]+),(%d+)') do
      if number(life) > lineage then
        if with ~= 'set' and had ~= 'set' then with = sum(with, value, had) end
        if with then kept[#kept + 1] = fmt(';%s,%s,%s', life, with, sum(with_n, version, had_n)) end
      end
    end
    e.p = #kept > 0 and table.concat(kept) or nil -- step: keep
    e.w = had ~= 'set' and value or nil
    if last == e.l then e.x = deleted == '1' or nil end -- nothing was written since: it is what the row has become
  else
    e.p = lives
    e.w = e.w and value
  end
  renew(s)
  e.v, e.n, e.b, e.l, e.epoch = v, n, version, s.open, s.open
  if not e.a then rejoin(s, KEYS[2], { key }) end
  save(s) -- first: an error must not leave an entry in an epoch that is unknown
  put(name, e)
  return 'y'
end

local function adopt(name, key, value, version, deleted)
  -- step: adopt
  renew(s) -- it becomes clean without a commit: its next life needs another number
  save(s)
  put(name, { v = value, n = version, epoch = '0', l = '0', x = deleted == '1' or nil }, ARGV[1])
  call('SREM', KEYS[2], key)
  call('SREM', KEYS[3], key)
  call('ZREM', KEYS[4], key)
  call('HDEL', KEYS[5], key)
  return 'y'
end

local out = {}
for i = 1, #KEYS - 5 do
  local name, at = KEYS[i + 5], 8 * i - 7
  local key, what, life, base = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local value, version, deleted, lineage = ARGV[at + 5], ARGV[at + 6], ARGV[at + 7], tonumber(ARGV[at + 8])
  local e = load(name)
  if not e or e.u or e.l ~= life or e.b ~= base then -- step: compare
    out[i] = 'w'
  elseif what == 'm' then
    out[i] = merge(name, key, e, value, version, deleted, lineage)
  elseif tonumber(e.n) < tonumber(version) then -- step: adopted
    out[i] = adopt(name, key, value, version, deleted)
  else
    out[i] = 'w'
  end
end
save(s)
return table.concat(out)

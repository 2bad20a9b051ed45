-- reconcile.lua mends entries of a Redis that lost its tail: it came back (from an older snapshot, or as a replica that
-- lagged) without writes that Postgres has. What was written since it came back is put on top of what Postgres has.
--
-- KEYS[1]    {aw:07}:dirty
-- KEYS[i+1]  entry {aw:07}:c:<key>
-- ARGV[1]    TTL of a clean entry, ms
-- then for each key seven: what to do, its life and base version as they were peeked, value, version, deleted ("1", "0") and
-- lineage of Postgres's row. What to do:
--   "m"  merge: the row is newer than the base of this entry, so it may have writes that this entry does not know. The value
--        becomes that of the row and what was added since the base, or what was set since; likewise the version. It stays
--        dirty, and begins a new life. But a row has the writes of every earlier life that began no later than its lineage:
--        then it is what was added since that life, and an entry whose lives the row has all of is adopted.
--   "a"  adopt: the row is a later state of this very life, or there is no life since nothing was written: it becomes the
--        row, and clean.
--
-- Reply: a letter for each key: y done, w not: it has moved on since it was peeked; o not: the sum would overflow.

local dirty = KEYS[1]
local tag = sub(dirty, 1, (find(dirty, '}', 1, true)))

-- had is what the entry was at the end of the last of its lives that the row has, or else its base. Its present life is
-- over if it is of another incarnation. If not, the row cannot have it, whatever the numbers say: after a failover they may
-- come from a clock that is behind.
local function merge(name, e, value, version, lineage)
  local had, had_n, lives = e.w or 'set', e.b, e.p or ''
  if sub(e.e, 1, 8) ~= incarnation() then lives = fmt('%s;%s,%s,%s', lives, sub(e.e, 9), e.v, e.n) end
  e.c = nil
  for began, with, with_n in gmatch(lives, ';(%d+),([^,;]+),(%d+)') do
    if began == lineage and tonumber(version) < tonumber(with_n) then
      -- The row is not ahead: it is that life as it was before its end. So it may be replaced. (The life is a new one so
      -- that the ack of the flush that was kept out finds it changed.)
      e.b, e.e, e.p = version, new_life(), lives
      if e.w then e.w = value end
      put(name, e)
      return 'y'
    end
    if tonumber(began) <= tonumber(lineage) then had, had_n = with, with_n end
  end
  if had ~= 'set' then
    e.v = sum(e.v, value, had)
    if not e.v then return 'o' end
  end
  e.n = sum(e.n, version, had_n)
  if not e.n then return 'o' end
  e.b, e.w, e.e, e.p = version, had ~= 'set' and value or nil, new_life(), nil
  put(name, e)
  return 'y'
end

local function adopt(name, key, value, version, deleted)
  call('ZREM', dirty, key) -- a write that a full Redis lets pass, and the others after it
  call('SET', name, encode({ v = value, n = version, x = deleted == '1' and '' or nil }), 'PX', ARGV[1])
  call('HDEL', tag .. ':dead', key)
  return 'y'
end

local out = {}
for i = 1, (#ARGV - 1) / 7 do
  local name, at = KEYS[i + 1], 1 + (i - 1) * 7
  local life, base, value, version = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local text = pcall('GET', name)
  local e = type(text) == 'string' and decode(text)
  local part = sub(life, 1, 8) ~= incarnation() and (tonumber(sub(life, 9)) or 0) <= tonumber(ARGV[at + 7])
  if not e or e.u or (e.e or '') ~= life then
    out[i] = 'w'
  elseif (ARGV[at + 1] == 'a' or part) and tonumber(e.n) < tonumber(version) then
    out[i] = adopt(name, sub(name, #tag + 4), value, version, ARGV[at + 6])
  elseif ARGV[at + 1] == 'm' and e.b == base then
    out[i] = merge(name, e, value, version, ARGV[at + 7])
  else
    out[i] = 'w'
  end
end
return table.concat(out)

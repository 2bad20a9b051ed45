-- hydrate.lua fills entries of one shard from Postgres. It creates the entry of a cold key, and adds the base to an entry that was written
-- while its base was unknown. It leaves complete entries alone.
--
-- The token is the shard's watermark and open epoch from before Postgres was read. If both are unchanged, no key has become clean since, so
-- the rows are current. Without this check a slow reader could restore an old state of a key that was written, flushed and evicted
-- meanwhile.
--
-- An entry without a base may come from before a restart of Redis. It may have been rebased and flushed already, in the time that Redis has
-- lost. Lineages show this: if the row's lineage is not older than an ended lineage, the row has the writes of the ended lineage.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:dead
-- KEYS[i+2]  entry {aw:07}:c:<key>
-- ARGV[1]    token: <watermark>:<open>, as in the head of apply.lua's reply
-- ARGV[2]    TTL of a created entry, ms
-- ARGV[3]    TTL of a created entry when Postgres has no row, ms
-- ARGV[i+3]  the row of the key: "-" for none; else, separated by spaces, value, version, lineage (decimal), and "r" for a row or "x" for
--            a tombstone
--
-- Reply: for each key "y" created, or complete already; "s" stale token: read Postgres again; "o" the sum of base and unsynced operations
-- would overflow, nothing changed; "e" corrupt; or the entry after it was rebased.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
local fresh = not s.changed and ARGV[1] == s.watermark_id .. ':' .. s.open -- step: fresh
save(s)

local function create(name, value, version, state)
  local e = { v = value, n = version, epoch = '0', l = s.first_id, x = state ~= 'r' or nil }
  call('SET', name, encode(e), 'PX', state == '-' and ARGV[3] or ARGV[2])
  return 'y'
end

-- Returns the ended lineages that are newer than the row's, rebased on the row: a late flush may still write them to Postgres. counts:
-- their values are relative to the base, which was had.
local function later(ended, lineage, value, version, had, had_n, counts)
  local kept = {}
  for id, with, with_n in gmatch(ended, ';(%w+),([^,;]+),(%d+)') do
    if number(id) > lineage then
      if counts and with ~= 'set' then with = sum(with, value, had) end
      if with then kept[#kept + 1] = fmt(';%s,%s,%s', id, with, sum(with_n, version, had_n)) end
    end
  end
  return #kept > 0 and table.concat(kept) or nil
end

local function rebase(name, e, value, version, state, lineage)
  local ended, counts = e.p or '', e.u == 'u'
  -- Nothing was written to it since the restart, or since an operator restored a copy of it. (A lower number alone proves nothing: after a
  -- failover the clock may be behind.)
  local untouched = number(e.l) < s.first or number(e.l) == lineage
  if untouched then ended = fmt('%s;%s,%s,%s', ended, e.l, e.v, e.n) end
  local had, had_n, last = '0', '0', nil
  for id, with, with_n in gmatch(ended, ';(%w+),([^,;]+),(%d+)') do
    if number(id) <= lineage then -- step: ended lineages
      had, had_n, last, counts = with, with_n, id, with ~= 'set'
    end
  end
  local v, n = counts and sum(e.v, value, had) or not counts and e.v, sum(e.n, version, had_n)
  if not v or not n then return 'o' end
  if e.h and not renumber(name, counts and had or 'set', had_n, version, value) then return 'e' end -- step: history
  if untouched and last == e.l then e.x = state == 'x' or nil end -- the row is a later state of this entry
  e.p = later(e.p or '', lineage, value, version, had, had_n, counts) -- step: keep
  e.v, e.n, e.u, e.b, e.w = v, n, nil, version, counts and value or nil
  return encode(e)
end

-- A fast path for nearly all entries: only increments, all of this incarnation, and numbers of at most 13 digits. nil for all others.
local number_of, last_epoch = 0, nil
local function rebase_plain(text, value, version, lineage)
  local v, n, epoch = match(text, '^(%-?%d+) (%d+) (%w+):u b0 w0$')
  if not v or #v > 13 or #n > 13 or #value > 13 or #version > 13 then return nil end
  if epoch ~= last_epoch then last_epoch, number_of = epoch, number(epoch) or 0 end
  if number_of < s.first or number_of == lineage then return nil end -- step: of this incarnation
  return (v + value) .. ' ' .. (n + version) .. ' ' .. epoch .. ' b' .. version .. ' w' .. value
end

local texts = call('MGET', unpack(KEYS, 3))
local out, rebased = {}, {}
for i = 1, #texts do
  local name, text, row = KEYS[i + 2], texts[i], ARGV[i + 3]
  local value, version, lineage, state = '0', '0', 0, '-'
  if row ~= '-' then
    value, version, lineage, state = match(row, '^(%-?%d+) (%d+) (%-?%d+) (%a)$')
    lineage = tonumber(lineage)
  end
  local plain = text and fresh and rebase_plain(text, value, version, lineage)
  local e = not plain and text and decode(text)
  if plain then
    out[i] = plain
    rebased[#rebased + 1] = name
    rebased[#rebased + 1] = plain
  elseif text and not e or not text and call('EXISTS', name) == 1 then -- MGET returns nothing for a key of another type
    out[i] = 'e'
  elseif e and not e.u then
    out[i] = 'y'
  elseif not fresh then -- step: token
    out[i] = 's'
  elseif e then
    out[i] = rebase(name, e, value, version, state, lineage)
    if #out[i] > 1 then
      rebased[#rebased + 1] = name
      rebased[#rebased + 1] = out[i]
    end
  else
    out[i] = create(name, value, version, state)
  end
end
if #rebased > 0 then
  free(KEYS[2]) -- so that flushing continues in a full Redis
  call('MSET', unpack(rebased))
  save_lists()
end
return out

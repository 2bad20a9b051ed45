-- hydrate.lua brings what Postgres has of some counters of one shard into their entries: it creates the entry of a cold
-- key, and gives its base to an entry that was written while the base was unknown. An entry that is complete is left alone.
--
-- The token names the shard's watermark and open epoch from before Postgres was asked. While both are the same, no key has
-- become clean in between, so what was read is what Postgres has. Without this check, a slow reader could bring back an old
-- state of a key that was meanwhile written, flushed and evicted.
--
-- An entry that is rebased may come from before a restart of Redis, and may have been rebased and flushed already, after
-- what that Redis still knows. Lineages tell: they are the numbers of the entry's lives. A row whose lineage is not older than
-- a life from before the restart has the writes of that life.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:dead
-- KEYS[i+2]  entry {aw:07}:c:<key>
-- ARGV[1]    token: <watermark>:<open>, as in the head of apply.lua's reply
-- ARGV[2]    TTL of a created entry, ms
-- ARGV[3]    TTL of a created entry when Postgres has no row, ms
-- ARGV[i+3]  what Postgres has of the key: "-" no row; else, separated by spaces, value, version, lineage (decimal), and "r" for a
--            row, "x" for a tombstone
--
-- Reply: for each key "y" created, or complete already; "s" stale token: read Postgres again; "o" the sum of base and unsynced
-- operations would overflow: nothing changed; "e" not an entry; or the entry as it has been rebased.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
local fresh = not s.changed and ARGV[1] == s.watermark_id .. ':' .. s.open -- step: fresh
save(s)

local function create(name, value, version, state)
  local e = { v = value, n = version, epoch = '0', l = '0', x = state ~= 'r' or nil }
  call('SET', name, encode(e), 'PX', state == '-' and ARGV[3] or ARGV[2])
  return 'y'
end

-- The lives that are newer than lineage, with the row under them: a late flush may still bring them to Postgres. counts: their
-- values count from the base, which was had.
local function later(lives, lineage, value, version, had, had_n, counts)
  local kept = {}
  for life, with, with_n in gmatch(lives, ';(%w+),([^,;]+),(%d+)') do
    if number(life) > lineage then
      if counts and with ~= 'set' then with = sum(with, value, had) end
      if with then kept[#kept + 1] = fmt(';%s,%s,%s', life, with, sum(with_n, version, had_n)) end
    end
  end
  return #kept > 0 and table.concat(kept) or nil
end

local function rebase(e, value, version, state, lineage)
  local lives, counts = e.p or '', e.u == 'u'
  -- Nothing was written to it since the restart; or since a copy of it came back that somebody had made. (A lower number
  -- alone proves nothing: after a failover it may come from a clock that is behind.)
  local untouched = number(e.l) < s.first or number(e.l) == lineage
  if untouched then lives = fmt('%s;%s,%s,%s', lives, e.l, e.v, e.n) end
  local had, had_n, last = '0', '0', nil
  for life, with, with_n in gmatch(lives, ';(%w+),([^,;]+),(%d+)') do
    if number(life) <= lineage then -- step: lives
      had, had_n, last, counts = with, with_n, life, with ~= 'set'
    end
  end
  local v, n = counts and sum(e.v, value, had) or not counts and e.v, sum(e.n, version, had_n)
  if not v or not n then return 'o' end
  if untouched and last == e.l then e.x = state == 'x' or nil end -- the row is what this entry has become
  e.p = later(e.p or '', lineage, value, version, had, had_n, counts) -- step: keep
  e.v, e.n, e.u, e.b, e.w = v, n, nil, version, counts and value or nil
  return encode(e)
end

-- The same for what nearly all are: nothing but increments of this incarnation, of a number that has less than 14 digits. nil
-- for any other.
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
  elseif text and not e or not text and call('EXISTS', name) == 1 then -- MGET is silent about what is no string
    out[i] = 'e'
  elseif e and not e.u then
    out[i] = 'y'
  elseif not fresh then -- step: token
    out[i] = 's'
  elseif e then
    out[i] = rebase(e, value, version, state, lineage)
    if out[i] ~= 'o' then
      rebased[#rebased + 1] = name
      rebased[#rebased + 1] = out[i]
    end
  else
    out[i] = create(name, value, version, state)
  end
end
if #rebased > 0 then
  free(KEYS[2]) -- flushing goes on in a Redis that is full
  call('MSET', unpack(rebased))
end
return out

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
-- then for each key four: value, version, state: "r" row, "x" tombstone, "-" no row (value, version "0"), lineage (decimal)
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

local texts = call('MGET', unpack(KEYS, 3))
local out, rebased = {}, {}
for i = 1, #texts do
  local name, text, at = KEYS[i + 2], texts[i], 4 * i
  local e = text and decode(text)
  if text and not e or not text and call('EXISTS', name) == 1 then -- MGET is silent about what is no string
    out[i] = 'e'
  elseif e and not e.u then
    out[i] = 'y'
  elseif not fresh then -- step: token
    out[i] = 's'
  elseif e then
    out[i] = rebase(e, ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]))
    if out[i] ~= 'o' then
      rebased[#rebased + 1] = name
      rebased[#rebased + 1] = out[i]
    end
  else
    out[i] = create(name, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  end
end
if #rebased > 0 then
  free(KEYS[2]) -- flushing goes on in a Redis that is full
  call('MSET', unpack(rebased))
end
return out

-- check.lua compares unchecked entries of one shard (see entry.lua) with their rows, so that no read goes back after Redis has lost
-- its latest writes. An entry becomes its row if the row is newer. If not, Postgres has lost something, or nothing was lost, and the
-- entry keeps its state. Either way it is checked afterwards. Other entries are left alone: whatever changed them since has read the
-- row or made them dirty.
--
-- A row may have grown since it was read, but only by a flush from before the restart: a write makes the entry dirty, and so it is left
-- alone here. Therefore there is no token. But the row must have been read in this incarnation of Redis: before, Postgres may not
-- have had the writes yet that Redis has lost.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:dead
-- KEYS[i+2]  entry {aw:07}:c:<key>
-- ARGV[1]    first, as in the head of apply.lua's reply, from before the rows were read
-- ARGV[2]    TTL of a clean entry, ms
-- ARGV[3]    TTL of a clean entry without a version, ms
-- ARGV[i+3]  the row of the key, as in hydrate.lua
--
-- Reply: for each key "y" checked; "n" the same, and the entry has become its row; "s" the incarnation has changed: read Postgres again.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
free(KEYS[2]) -- reads must not fail in a full Redis, and a checked entry is hardly longer
save(s)

local texts = call('MGET', unpack(KEYS, 3))
local out = {}
for i = 1, #texts do
  local name, e = KEYS[i + 2], texts[i] and decode(texts[i])
  out[i] = 'y'
  if e and is_unchecked(s, e) then
    if ARGV[1] ~= s.first_id then -- step: same incarnation
      out[i] = 's'
    else
      local value, version, state = match(ARGV[i + 3], '^(%-?%d+) (%d+) %-?%d+ (%a)$')
      if version and tonumber(e.n) < tonumber(version) then -- step: newer
        e.v, e.n, e.x, out[i] = value, version, state ~= 'r' or nil, 'n'
      end
      put(name, { v = e.v, n = e.n, epoch = '0', l = s.first_id, x = e.x }, e.n == '0' and ARGV[3] or ARGV[2])
    end
  end
end
return out

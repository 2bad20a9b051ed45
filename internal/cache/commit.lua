-- commit.lua drops a sealed epoch once Postgres has committed a state of each of its keys, or the key was set aside. Given keys, it drops
-- only these from the epoch, so that a later flush repeats less.
--
-- It checks both the epoch and the incarnation of Redis in which the epoch was read. A Redis that restarted with the same epoch still
-- sealed has lost what the flush did since (reconciled entries, set-aside keys), so dropping the epoch would lose those keys.
--
-- KEYS[1]  {aw:07}:meta
-- KEYS[2]  {aw:07}:sealed
-- KEYS[3]  {aw:07}:open
-- KEYS[4]  {aw:07}:dead
-- ARGV[1]  ID of the epoch, base 36
-- ARGV[2]  first, from the same reply of seal.lua
-- ARGV[i]  keys to drop; none: all. Dropping the last key commits the epoch, too: otherwise its keys would stay dirty, in no epoch,
--          until the next commit
--
-- Reply: the number of keys in the open epoch, even if the epoch was committed before; -1 if another epoch is sealed or the incarnation
-- differs: nothing was done. A commit publishes the shard on the channel aw:acks, prefixed with the namespace, for callers that wait for a
-- watermark.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
free(KEYS[4])
save(s)
if s.first_id ~= ARGV[2] then return -1 end -- step: incarnation
if s.watermark_id == ARGV[1] then return call('SCARD', KEYS[3]) end -- committed before
if s.sealed ~= ARGV[1] then return -1 end -- step: check
if #ARGV > 2 then
  for from = 3, #ARGV, CHUNK do
    call('SREM', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK - 1, #ARGV)))
  end
  if call('EXISTS', KEYS[2]) == 1 then return call('SCARD', KEYS[3]) end
end
call('UNLINK', KEYS[2])
s.watermark_id, s.sealed, s.sealed_since, s.changed = s.sealed, '0', '0', true -- step: watermark
save(s)
pcall('PUBLISH', match(KEYS[1], '^{(.-)aw:%d+}') .. 'aw:acks', sub(KEYS[1], 1, -6))
return call('SCARD', KEYS[3])

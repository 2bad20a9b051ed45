-- progress.lua says how far keys of one shard have got on their way to Postgres. It changes nothing.
--
-- KEYS[1]  {aw:07}:dirty
-- ARGV     the keys
--
-- Reply: the beginning of master_replid, which is new after each restart and each promotion of Redis, and then for each key
-- one string: "-" for no entry, else its version, and what is known of it:
--   c             clean
--   d <version> <base> <life>   dirty; this version of it, or "0", has been committed; its life and the version before that
--   u             dirty, and the version counts from an unknown base
-- "- d" is a dirty key whose entry is not there.

local dirty = KEYS[1]
local tag = sub(dirty, 1, (find(dirty, '}', 1, true)))
local out = { incarnation() }

for i = 1, #ARGV do
  local text = pcall('GET', tag .. ':c:' .. ARGV[i])
  if type(text) == 'table' and not find(text.err, 'WRONGTYPE', 1, true) then error(text.err, 0) end
  local e = type(text) == 'string' and decode(text)
  local line
  if not e then
    line = call('ZSCORE', dirty, ARGV[i]) and '- d 0' or '- c'
  elseif e.u then
    line = e.n .. ' u'
  elseif not call('ZSCORE', dirty, ARGV[i]) then
    line = e.n .. ' c'
  else
    local committed, life = match(e.c or '', '^(%d+),(.*)$')
    line = fmt('%s d %s %s %s', e.n, life == e.e and committed or '0', e.b or '0', e.e or '')
  end
  out[i + 1] = line
end
return out

-- lease.lua keeps the lease and the state of a conversion.
--
-- KEYS[1]  aw:meta
-- KEYS[2]  {aw:meta}:convert, the lease: its holder, with a TTL; it is in the same slot
-- ARGV[1]  the step:
--          take     take the lease if it is free and the layout is 2 or 2>3
--          mark     change layout 2 to 2>3, with the conversion's token and its number of shards; processes of the old version no
--                   longer start
--          unmark   change the layout back to 2, before anything was converted
--          renew    extend the lease to its full time
--          finish   change layout 2>3 to 3, and release the lease
--          release  release the lease
-- ARGV[2]  the caller
-- ARGV[3]  TTL of the lease, ms
-- ARGV[4]  with mark: the new number of shards
-- ARGV[5]  with mark: the token
--
-- Reply: the resulting layout ("" if none), holder of the lease ("" if none), old number of shards, new number of shards, and token.
-- Every step but take does nothing if the caller does not have the lease.

local meta, lease = KEYS[1], KEYS[2]
local what, owner, ttl = ARGV[1], ARGV[2], ARGV[3]
local layout, holder = call('HGET', meta, 'layout') or '', call('GET', lease) or ''

local function hold()
  call('HDEL', meta, '') -- a full Redis allows this write, and then all others of this script
  call('SET', lease, owner, 'PX', ttl)
  holder = owner
end

local steps = {
  mark = function()
    if layout ~= '2' then return end
    call('HSET', meta, 'layout', '2>3', 'converting_to', ARGV[4], 'conversion', ARGV[5])
    layout = '2>3'
  end,
  unmark = function()
    if layout ~= '2>3' then return end
    call('HSET', meta, 'layout', '2')
    call('HDEL', meta, 'converting_to', 'conversion')
    layout = '2'
  end,
  renew = function() end,
  finish = function()
    if layout ~= '2>3' then return end
    call('HSET', meta, 'layout', '3', 'AFTERWRITE_SHARDS', call('HGET', meta, 'converting_to'))
    call('HDEL', meta, 'converting_to', 'conversion')
    layout = '3'
  end,
}

if what == 'take' then
  if (layout == '2' or layout == '2>3') and (holder == '' or holder == owner) then hold() end
elseif holder == owner then
  hold()
  if steps[what] then steps[what]() end
  if what == 'finish' or what == 'release' then
    call('DEL', lease)
    holder = ''
  end
end
local m = call('HMGET', meta, 'AFTERWRITE_SHARDS', 'converting_to', 'conversion')
return { layout, holder, m[1] or '', m[2] or '', m[3] or '' }

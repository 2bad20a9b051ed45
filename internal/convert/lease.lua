-- lease.lua keeps who converts a Redis, and how far that is, in aw:meta and beside it.
--
-- KEYS[1]  aw:meta
-- KEYS[2]  {aw:meta}:convert, the lease: who converts now, with a TTL; it is in the same slot
-- ARGV[1]  what to do:
--          take     takes the lease if nobody has it, and layout is 2 or 2>3
--          mark     changes layout 2 to 2>3, with the conversion's token and its number of shards; processes of the old version do
--                   not start any more
--          unmark   changes it back: nothing has been converted yet
--          renew    gives the lease its full time
--          finish   changes layout 2>3 to 3, and gives the lease back
--          release  gives it back
-- ARGV[2]  who asks
-- ARGV[3]  TTL of the lease, ms
-- ARGV[4]  with mark: the new number of shards
-- ARGV[5]  with mark: the token
--
-- Reply: layout ("" if none), who has the lease ("" if nobody), the old number of shards, the new one, and the token, as they
-- are afterwards. Everything but take does nothing if the lease is somebody else's.

local meta, lease = KEYS[1], KEYS[2]
local what, owner, ttl = ARGV[1], ARGV[2], ARGV[3]
local layout, holder = call('HGET', meta, 'layout') or '', call('GET', lease) or ''

local function hold()
  call('HDEL', meta, '') -- a write that a full Redis does not refuse, nor what follows it
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

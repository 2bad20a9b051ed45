-- entry.lua is prepended to every script that reads or changes entries. It has no KEYS, no ARGV and no reply: it defines the format of an
-- entry and the epochs of a shard.
--
-- An entry is one string of fields separated by single spaces:
--   <value> <version> <epoch>[:<flags>]   then what only a dirty entry needs, each with its letter:
--   l<lineage>    the epoch in which its unsynced writes began; absent: the same as <epoch>
--   b<version>    the base: the version before the lineage, and
--   w<value>      the value before it; absent if the value was set or deleted since
--   p;<lineage>,<value>,<version>;...   lineages that a restart of Redis ended, each with its last state; "set" instead of a value that was
--                 set or deleted since
-- <epoch> is the epoch of the last write; 0: none since the entry was hydrated, or checked; then l is first (see below) at that time.
-- Flags: x deleted; u the base is unknown, value and version
-- count from it; s the same, but the value was set or deleted since; a set aside (retry or dead); h its list {aw:07}:h:<key> may have
-- records of its unsynced writes (see records.lua). Epochs are microseconds of Redis's clock in base 36, and a lineage has the number of
-- the epoch in which it began.
--
-- An entry is dirty if its epoch is newer than the shard's watermark, or if it is set aside. Nothing marks it clean: the l, b, w and p of a
-- clean entry are out of date, and the next write replaces them.
--
-- A clean entry is unchecked if it was last written, hydrated or checked before first: Redis was restarted since, or a replica was
-- promoted, and may have lost later writes that Postgres has. Its first use compares it with its row (check.lua).

local call, pcall = redis.call, redis.pcall
local byte, sub, find, match, gmatch = string.byte, string.sub, string.find, string.match, string.gmatch
local fmt, floor = string.format, math.floor

-- The maximum number of elements of one command: Lua's stack is bounded.
local CHUNK = 1000

local function encode(e)
  local text = e.v .. ' ' .. e.n .. ' ' .. e.epoch
  if e.x or e.u or e.a or e.h then
    text = text .. ':' .. (e.x and 'x' or '') .. (e.u or '') .. (e.a and 'a' or '') .. (e.h and 'h' or '')
  end
  if e.l ~= e.epoch then text = text .. ' l' .. e.l end
  if e.b then text = text .. ' b' .. e.b end
  if e.w then text = text .. ' w' .. e.w end
  if e.p then text = text .. ' p' .. e.p end
  return text
end

-- Replaces an entry. ttl is in ms; without one the entry does not expire.
local function put(name, e, ttl)
  if ttl then
    call('SET', name, encode(e), 'PX', ttl)
  else
    call('SET', name, encode(e))
  end
end

-- Splits a decimal number into two that doubles hold exactly: billions and the rest, both with its sign.
local function halves(s)
  local negative = byte(s) == 45 -- -
  local digits = negative and sub(s, 2) or s
  local high, low = tonumber(sub(digits, 1, -10)) or 0, tonumber(sub(digits, -9))
  if negative then return -high, -low end
  return high, low
end

-- a + b - c (c is optional) as 64-bit integers; nil if the result does not fit. Lua's numbers are doubles, exact up to 15 digits.
local function sum(a, b, c)
  if #a <= 15 and #b <= 15 and (not c or #c <= 15) then
    local s = a + b - (c or 0)
    if s < 1e15 and s > -1e15 then return fmt('%.0f', s) end
  end
  local high, low = halves(a)
  local h, l = halves(b)
  high, low = high + h, low + l
  if c then
    h, l = halves(c)
    high, low = high - h, low - l
  end
  local carry = floor(low / 1e9)
  high, low = high + carry, low - carry * 1e9 -- low is 0 or more now
  if high < 0 and low > 0 then high, low = high + 1, low - 1e9 end
  if high > 9223372036 or (high == 9223372036 and low > 854775807) then return nil end
  if high < -9223372036 or (high == -9223372036 and low < -854775808) then return nil end
  if high == 0 then return fmt('%.0f', low) end
  return fmt('%.0f%09.0f', high, low < 0 and -low or low)
end

-- Reports whether a decimal number fits into 64 bits.
local function fits(s) return #s <= 18 or (#s <= 20 and sum(s, '0')) end

-- Reports whether p is a list of ended lineages.
local function are_lineages(p)
  local read = 0
  for id, v, n in gmatch(p, ';(%w+),([^,;]+),(%d+)') do
    if #id > 11 or not (v == 'set' or (find(v, '^%-?%d+$') and fits(v))) or not fits(n) then return false end
    read = read + #id + #v + #n + 3
  end
  return p ~= '' and read == #p
end

-- The pattern of each field of an entry.
local FIELDS = { l = '^%w+$', b = '^%d+$', w = '^%-?%d+$', p = '^;' }

-- Reads an entry into a table; nil if text is not an entry. decodeState in entry.go accepts exactly the same texts.
local function decode(text)
  local v, n, epoch, flags, rest = match(text, '^(%-?%d+) (%d+) (%w+):?([xusah]*)(.*)$')
  if not v then return nil end
  local e = { v = v, n = n, epoch = epoch, l = epoch }
  if flags ~= '' then
    e.x, e.a = find(flags, 'x', 1, true) and true, find(flags, 'a', 1, true) and true
    e.h = find(flags, 'h', 1, true) and true
    e.u = match(flags, '[us]')
  end
  local read = 0
  for letter, what in gmatch(rest, ' (%l)(%S*)') do
    if not FIELDS[letter] or not find(what, FIELDS[letter]) then return nil end
    e[letter], read = what, read + #what + 2
  end
  if read ~= #rest or #epoch > 11 or #e.l > 11 then return nil end
  if not (fits(v) and fits(n) and fits(e.b or '0') and fits(e.w or '0') and (not e.p or are_lineages(e.p))) then return nil end
  return e
end

-- Reads the entry under a name. Returns it, or nil; whether it is corrupt; and its text.
local function load(name)
  local text = pcall('GET', name)
  if not text then return nil, false end
  if type(text) == 'table' then
    if not find(text.err, 'WRONGTYPE', 1, true) then error(text.err, 0) end
    return nil, true
  end
  local e = decode(text)
  return e, not e, text
end

-- The number of an epoch: exact, since doubles hold microseconds until the year 2255.
local function number(id) return tonumber(id, 36) end

local function base36(n)
  local digits = '0123456789abcdefghijklmnopqrstuvwxyz'
  local s = ''
  repeat
    local d = n % 36
    s = sub(digits, d + 1, d + 1) .. s
    n = (n - d) / 36
  until n == 0
  return s
end

local now_us, now_run

-- Returns Redis's clock in microseconds.
local function microseconds()
  if not now_us then
    local t = call('TIME')
    now_us = t[1] * 1000000 + t[2]
  end
  return now_us
end

-- The same in ms, as a string.
local function milliseconds() return fmt('%.0f', floor(microseconds() / 1000)) end

-- Returns the ID of this incarnation of Redis, 8 digits. A restart or a promotion changes it.
local function incarnation()
  now_run = now_run or match(call('INFO', 'replication'), 'master_replid:(%x%x%x%x%x%x%x%x)') or '00000000'
  return now_run
end

-- Returns an ID that no epoch of the shard has had: the clock, or the last ID plus one if the clock is behind.
local function id_after(last) return base36(math.max(last and number(last) + 1 or 0, microseconds())) end

-- Reads the epochs of a shard from the text of its meta key: "<open> <since> <watermark> <first> <incarnation> <sealed> <sealed since>
-- <requeued>". open is the epoch that takes writes; since is when its first key was written, ms; watermark the last epoch whose keys
-- Postgres all has; first the first epoch of this incarnation of Redis; sealed the epoch that is being flushed; requeued the last epoch
-- that requeued keys have joined. "0": there is none. watermark and first are also held as numbers. The first script after a restart or a
-- promotion opens a new epoch. A script that writes to the shard must call save().
local function epochs(meta, text)
  local s = { meta = meta, watermark_id = '0', sealed = '0', sealed_since = '0', requeued = '0', since = '0' }
  if text then
    s.open, s.since, s.watermark_id, s.first_id, s.run, s.sealed, s.sealed_since, s.requeued =
      match(text, '^(%w+) (%d+) (%w+) (%w+) (%w+) (%w+) (%d+) (%w+)$')
    if not s.open then error('WRONGTYPE another program wrote to ' .. meta, 0) end
  elseif call('EXISTS', meta) == 1 then
    error('WRONGTYPE another program wrote to ' .. meta, 0)
  end
  if s.run ~= incarnation() then -- step: restart
    s.open = id_after(s.open)
    s.first_id, s.run, s.changed = s.open, incarnation(), true -- step: first
  end
  s.watermark, s.first = number(s.watermark_id), number(s.first_id)
  return s
end

local function meta_text(s)
  return table.concat({ s.open, s.since, s.watermark_id, s.first_id, s.run, s.sealed, s.sealed_since, s.requeued }, ' ')
end

local function save(s)
  if s.changed then call('SET', s.meta, meta_text(s)) end
  s.changed = false
end

-- Makes the script run in a full Redis: Redis checks its memory only at the first write of a script, and not for HDEL.
local function free(dead) call('HDEL', dead, '') end

-- Gives the open epoch a new ID; its keys stay in it.
local function renew(s) s.open, s.changed = id_after(s.open), true end

local function is_dirty(s, e) return e.a or number(e.epoch) > s.watermark end -- step: dirty

-- step: unchecked
local function is_unchecked(s, e) return not is_dirty(s, e) and number(e.epoch ~= '0' and e.epoch or e.l) < s.first end

-- Returns l for a dirty entry that becomes clean without a commit: it is checked only if its writes are of this incarnation.
local function checked_if_new(s, e) return number(e.l) >= s.first and s.first_id or '0' end

-- Calls a command with many elements, CHUNK at a time, and returns the sum of the answers.
local function all(command, name, elements)
  local n = 0
  for from = 1, #elements, CHUNK do
    n = n + call(command, name, unpack(elements, from, math.min(from + CHUNK - 1, #elements)))
  end
  return n
end

-- Puts keys into the open epoch and returns the epoch's number of keys. shard_open is the name of its set.
local function join(s, shard_open, keys)
  if #keys == 0 then return 0 end
  local added, has = all('SADD', shard_open, keys), call('SCARD', shard_open)
  if s.since == '0' or (added > 0 and has == added) then -- its first keys: since may be the time of keys that have left
    s.since, s.changed = milliseconds(), true
  end
  return has
end

-- Like join, for keys with older writes.
local function rejoin(s, shard_open, keys)
  if #keys == 0 then return end
  join(s, shard_open, keys)
  s.requeued, s.changed = s.open, true -- step: requeued
end


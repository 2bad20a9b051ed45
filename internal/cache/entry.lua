-- entry.lua stands before the scripts that read or change entries. It says what an entry is made of.
--
-- An entry is one string: "<value> <version>", and then what else there is to say, each with its letter before it and in this
-- order. A clean counter has none of it, but x.
--   x             deleted
--   u1, u2        the base is unknown. 1: value and version are counted from it; 2: only the version is
--   e<life>       which Redis its unsynced writes were made in, 8 digits, and the number of this run of them (see apply.lua)
--   b<version>    the version, and
--   w<value>      the value before the first of its lives; no value if it was set or deleted since
--   c<version>,<life>   what Postgres has of it, and of which life that is
--   p;<number>,<value>,<version>;...   its earlier lives
--
-- One string, because Redis reads and writes all strings of a batch in one command each, and a plain SET takes away the TTL.

local call, pcall = redis.call, redis.pcall
local byte, sub, find, match, gmatch = string.byte, string.sub, string.find, string.match, string.gmatch
local fmt, floor = string.format, math.floor

-- The most elements that are handed to one command: Lua's stack is bounded.
local CHUNK = 1000

-- Splits an entry into value, version and the rest; nil if text is none.
local function split(text)
  local v, n, rest = match(text, '^(%-?%d+) (%d+)(.*)$')
  if not v or #v > 20 or #n > 19 or (#n == 19 and n > '9223372036854775807') then return nil end
  if rest ~= '' and byte(rest) ~= 32 then return nil end
  return v, n, rest
end

-- Reads an entry into a table of its letters, with v and n for value and version; nil if text is none.
local function decode(text)
  local v, n, rest = split(text)
  if not v then return nil end
  local e = { v = v, n = n }
  for letter, what in gmatch(rest, ' (%l)(%S*)') do e[letter] = what end
  return e
end

-- What comes after value and version.
local function encode_rest(e)
  local rest = e.x and ' x' or ''
  if e.u then rest = rest .. ' u' .. e.u end
  if e.e then rest = rest .. ' e' .. e.e end
  if e.b then rest = rest .. ' b' .. e.b end
  if e.w then rest = rest .. ' w' .. e.w end
  if e.c then rest = rest .. ' c' .. e.c end
  if e.p then rest = rest .. ' p' .. e.p end
  return rest
end

local function encode(e) return e.v .. ' ' .. e.n .. encode_rest(e) end

-- A decimal number as two that doubles hold exactly: billions, and what is left; both with its sign.
local function halves(s)
  local negative = byte(s) == 45 -- -
  local digits = negative and sub(s, 2) or s
  local high, low = tonumber(sub(digits, 1, -10)) or 0, tonumber(sub(digits, -9))
  if negative then return -high, -low end
  return high, low
end

-- a + b - c (c may be left out) as 64-bit integers; nil when that does not fit. Lua's numbers are doubles, exact up to 15 digits.
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

local clock = {}

-- The time, in ms, as a string.
local function now()
  if not clock.ms then
    local t = call('TIME')
    clock.ms = fmt('%.0f', t[1] * 1000 + floor(t[2] / 1000))
  end
  return clock.ms
end

local function microseconds()
  local t = call('TIME')
  return fmt('%.0f', t[1] * 1000000 + t[2])
end

-- 8 digits that name this incarnation of Redis: a restart and a promotion make new ones.
local function incarnation()
  clock.run = clock.run or match(call('INFO', 'replication'), 'master_replid:(%x%x%x%x%x%x%x%x)') or '00000000'
  return clock.run
end

-- The life of writes that begin now.
local function new_life()
  clock.life = clock.life or incarnation() .. microseconds()
  return clock.life
end

-- Replaces an entry, also in a Redis that is full: that is asked before the first write of a script only, and not for DEL.
local function put(name, e)
  call('DEL', name)
  call('SET', name, encode(e))
end

-- Makes a new generation for a shard (see hydrate.lua). Deleting it serves as well, since the next to need one makes another.
local function renew_generation(tag)
  if pcall('SET', tag .. ':gen', microseconds()).err then call('DEL', tag .. ':gen') end
end


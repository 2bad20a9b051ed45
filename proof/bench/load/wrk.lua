-- wrk.lua makes increments of counters, or reads. Arguments, as name=value: keys (hot, zipf, uniform), space, batch (0: single
-- requests), prefix (of the keys' names), form (of a single request: nothing for increments, get, webdis), seed.
--
-- wrk calls request once for each request, so all that it does is to take a string from a table. The tables are filled before
-- the load begins. There is no function response: with one, wrk would pass every header and body to Lua.

local ffi = require('ffi')
ffi.cdef('typedef struct { long s, ns; } afterwrite_time; int clock_gettime(int, afterwrite_time *);')

local function seconds()
  local t = ffi.new('afterwrite_time')
  ffi.C.clock_gettime(0, t)
  return tonumber(t.s) + tonumber(t.ns) / 1e9
end

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
  thread:set('number', #threads)
end

local zipf_exponent = 1.1
local zipf_samples = 2 ^ 17 -- drawn beforehand, by turns; a thread sends about so many in some seconds
local batch_bodies = 64
local names_max = 10 ^ 6

-- What the requests have before and after the digits of a key, so that not each has to go through wrk.format.
local function around(a)
  local marker = '000000000000'
  local text
  if a.form == 'get' then
    text = wrk.format('GET', '/v1/counters/' .. a.prefix .. marker)
  elseif a.form == 'webdis' then
    text = wrk.format('GET', '/INCRBY/' .. a.prefix .. marker .. '/1')
  else
    text = wrk.format('POST', '/v1/counters/' .. a.prefix .. marker .. '/increment', { ['Content-Type'] = 'application/json' }, '{"by":1}')
  end
  local first, last = string.find(text, a.prefix .. marker, 1, true)
  return string.sub(text, 1, first - 1 + #a.prefix), string.sub(text, last + 1)
end

-- A function that draws the number of a key.
local function drawer(a)
  local space = math.min(tonumber(a.space), names_max)
  if a.keys == 'hot' then return function() return 0 end end
  if a.keys == 'uniform' then return function() return math.random(0, space - 1) end end
  local sums, sum = {}, 0
  for i = 1, space do
    sum = sum + i ^ -zipf_exponent
    sums[i] = sum
  end
  return function() -- the first whose sum is not below what was drawn
    local drawn, low, high = math.random() * sum, 1, space
    while low < high do
      local middle = math.floor((low + high) / 2)
      if sums[middle] < drawn then low = middle + 1 else high = middle end
    end
    return low - 1
  end
end

local function batch(a, draw)
  local operations = {}
  for i = 1, tonumber(a.batch) do
    operations[i] = string.format('{"op":"increment","key":"%s%012d","by":1}', a.prefix, draw())
  end
  local body = '{"operations":[' .. table.concat(operations, ',') .. ']}'
  return wrk.format('POST', '/v1/batch', { ['Content-Type'] = 'application/json' }, body)
end

local function prepare(args)
  local a = {}
  for _, arg in ipairs(args) do
    local name, value = string.match(arg, '^(%w+)=(.*)$')
    a[name] = value
  end
  math.randomseed(tonumber(a.seed) + number)
  local draw, texts, turn = drawer(a), {}, 0

  if a.batch ~= '0' then
    for i = 1, batch_bodies do texts[i] = batch(a, draw) end
    function request()
      turn = turn % batch_bodies + 1
      return texts[turn]
    end
    return
  end

  local before, after = around(a)
  local function text(key) return before .. string.format('%012d', key) .. after end
  if a.keys == 'hot' then
    local only = text(0)
    function request() return only end
  elseif a.keys == 'uniform' then
    local space, random = tonumber(a.space), math.random
    for i = 1, space do texts[i] = text(i - 1) end
    function request() return texts[random(space)] end
  else
    local made = {}
    for i = 1, zipf_samples do
      local key = draw()
      made[key] = made[key] or text(key)
      texts[i] = made[key]
    end
    function request()
      turn = turn % zipf_samples + 1
      return texts[turn]
    end
  end
end

-- wrk prepares one thread after the other, each begins as soon as it is ready, and wrk's clock starts with the last one. So
-- the threads before it had more time.
function init(args)
  prepare(args)
  ready = seconds()
end

local function lead()
  local sum, last = 0, threads[#threads]:get('ready')
  for _, thread in ipairs(threads) do sum = sum + last - thread:get('ready') end
  return sum / #threads
end

-- One line that is easy to read: times in µs.
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('result requests=%.0f status=%.0f connect=%.0f read=%.0f write=%.0f timeout=%.0f us=%.0f p50=%.0f p99=%.0f\n',
    summary.requests, e.status, e.connect, e.read, e.write, e.timeout, summary.duration + lead() * 1e6,
    latency:percentile(50), latency:percentile(99)))
end

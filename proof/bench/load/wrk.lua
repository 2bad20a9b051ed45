-- wrk.lua generates increments or reads of counters. Arguments, as name=value: keys (hot, zipf, uniform), space (number of keys),
-- batch (increments in a batch, or 0 for single requests), form (of single requests: empty for increments, get, webdis), seed, apikey (empty for
-- none).
--
-- wrk calls request for each request, so request only takes a string from a table that is filled before the load begins. There is
-- no function response: with one, wrk would pass every header and body to Lua.

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
local zipf_samples = 2 ^ 17 -- drawn before the load and used in turn; a thread sends about as many in some seconds
local batch_bodies = 64
local prefix = 'counter:'

-- Returns the headers of a request. Without any, wrk.format uses its own.
local function headers(a, json)
  if not json and a.apikey == '' then return nil end
  return { ['Content-Type'] = json and 'application/json' or nil, Authorization = a.apikey ~= '' and 'Bearer ' .. a.apikey or nil }
end

-- Returns the parts of a request before and after the digits of the key, so that wrk.format is called once, not for each key.
local function around(a)
  local marker = '000000000000'
  local text
  if a.form == 'get' then
    text = wrk.format('GET', '/v1/counters/' .. prefix .. marker, headers(a))
  elseif a.form == 'webdis' then
    text = wrk.format('GET', '/INCRBY/' .. prefix .. marker .. '/1')
  else
    text = wrk.format('POST', '/v1/counters/' .. prefix .. marker .. '/increment', headers(a, true), '{"by":1}')
  end
  local first, last = string.find(text, prefix .. marker, 1, true)
  return string.sub(text, 1, first - 1 + #prefix), string.sub(text, last + 1)
end

-- Returns a function that draws the number of a key.
local function drawer(a)
  local space = tonumber(a.space)
  if a.keys == 'hot' then return function() return 0 end end
  if a.keys == 'uniform' then return function() return math.random(0, space - 1) end end
  local sums, sum = {}, 0
  for i = 1, space do
    sum = sum + i ^ -zipf_exponent
    sums[i] = sum
  end
  return function() -- finds the first key whose sum is at least the drawn number
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
    operations[i] = string.format('{"op":"increment","key":"%s%012d","by":1}', prefix, draw())
  end
  local body = '{"operations":[' .. table.concat(operations, ',') .. ']}'
  return wrk.format('POST', '/v1/batch', headers(a, true), body)
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

-- wrk prepares its threads one after the other. Each starts to send when it is ready, but wrk's clock starts with the last one. So
-- done adds the average head start of the threads to the duration.
function init(args)
  prepare(args)
  ready = seconds()
end

local function lead()
  local sum, last = 0, threads[#threads]:get('ready')
  for _, thread in ipairs(threads) do sum = sum + last - thread:get('ready') end
  return sum / #threads
end

-- Prints one line for parseWRK. Times are in µs.
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('result requests=%.0f status=%.0f connect=%.0f read=%.0f write=%.0f timeout=%.0f us=%.0f p50=%.0f p99=%.0f\n',
    summary.requests, e.status, e.connect, e.read, e.write, e.timeout, summary.duration + lead() * 1e6,
    latency:percentile(50), latency:percentile(99)))
end

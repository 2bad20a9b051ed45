-- shift.lua stands before the scripts that put what was written to an entry on another base.

-- Adds plus to the value of entry and takes minus away, both 64-bit integers; nil when it does not fit: then nothing has
-- changed. Lua's numbers are doubles, so Redis has to reckon.
local function shift(entry, plus, minus)
  local negated = minus
  if minus ~= '0' then negated = string.sub(minus, 1, 1) == '-' and string.sub(minus, 2) or '-' .. minus end
  -- Taking away first keeps the sum small: what is left is what was written since.
  for i, by in ipairs({ negated, plus }) do
    local sum = redis.pcall('HINCRBY', entry, 'v', by)
    if type(sum) == 'table' then
      -- Not an integer is -(-2^63).
      if not string.find(sum.err, 'overflow', 1, true) and not string.find(sum.err, 'integer', 1, true) then
        error(sum.err, 0) -- Redis is full: it says so before the first write of a call
      end
      if i == 2 then redis.call('HINCRBY', entry, 'v', minus) end
      return nil
    end
  end
  return true
end

-- This incarnation of Redis, and a life that begins now, as in apply.lua. What is put on another base is another run of writes:
-- versions of the two must not be compared.
local incarnation = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x%x%x%x%x%x%x%x)') or '00000000'

local function new_life()
  local t = redis.call('TIME')
  return incarnation .. string.format('%.0f', t[1] * 1000000 + t[2])
end


-- history.lua is prepended to the scripts that renumber or drop writes of recorded counters. It has no KEYS, no ARGV and no reply.
-- records.lua describes the lists.

local prefix = sub(KEYS[1], 1, -5) -- {aw:07}:, since KEYS[1] is {aw:07}:meta

local function list_of(name) return prefix .. 'h:' .. sub(name, #prefix + 3) end

-- Changes the shard's number of records that Postgres lacks.
local function count_records(more)
  if more == 0 then return end
  local count = (tonumber(call('GET', prefix .. 'hn') or '0') or 0) + more
  if count > 0 then call('SET', prefix .. 'hn', fmt('%.0f', count)) else call('DEL', prefix .. 'hn') end
end

local renumbered = {}

-- Renumbers the records of an entry whose writes were added to a row of the given version and value. The row has the writes up to the
-- version had_n of the entry, whose value then was had ("set": unknown, since the value was set later): their records are dropped.
-- The later ones get lineage, or keep theirs. A record has the value "-" if it cannot be known. save_lists() writes the result. It returns
-- false if the list is of another type.
local function renumber(name, had, had_n, version, value, lineage)
  local list = list_of(name)
  local texts = pcall('LRANGE', list, 0, -1)
  if texts.err then return false end
  local kept, increments, base = {}, true, nil
  for i = 1, #texts do
    local n, v, own, kind, by, rest = match(texts[i], '^(%d+) (%-?%d*) (%w+) (%a)(%-?%d*)( .*)$')
    if n and tonumber(n) > tonumber(had_n) then -- step: dropped
      increments = increments and kind == 'i'
      if increments then -- until the value is set, it counts from the base
        if not base and tonumber(n) == had_n + 1 then
          base = v ~= '-' and sum(v, '0', by) or 'set'
        end
        base = base or had
        v = v ~= '-' and base ~= 'set' and sum(v, value, base) or '-' -- step: value
      end
      -- step: renumbered
      kept[#kept + 1] = sum(n, version, had_n) .. ' ' .. v .. ' ' .. (lineage or own) .. ' ' .. kind .. by .. rest
    end
  end
  renumbered[#renumbered + 1] = { list = list, records = kept, dropped = #texts - #kept }
  return true
end

-- Writes the lists that renumber() has changed.
local function save_lists()
  for i = 1, #renumbered do
    local r = renumbered[i]
    call('DEL', r.list)
    all('RPUSH', r.list, r.records)
    count_records(-r.dropped)
  end
end

-- Drops all records of an entry.
local function drop_records(name)
  local has = pcall('LLEN', list_of(name))
  call('DEL', list_of(name))
  count_records(type(has) == 'number' and -has or 0)
end


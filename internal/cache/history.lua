-- history.lua is prepended to the scripts that renumber or drop writes of recorded counters. It has no KEYS, no ARGV and no reply.
-- records.lua describes the lists.

local prefix = sub(KEYS[1], 1, -5) -- {aw:07}:, since KEYS[1] is {aw:07}:meta

local function list_of(name) return prefix .. 'h:' .. sub(name, #prefix + 3) end

-- The slot of the lists may be moving to another node of a cluster. Then a command fails if its key is not on this node: it has moved, or
-- does not exist. So each script reads all lists and the count before its first write, never deletes a list that it writes again, and
-- writes the count once, at its end.

local count            -- the shard's number of records that Postgres lacks, once it is read
local removed = 0      -- how many of them this script removes
local renumbered = {}  -- lists that save_lists() writes

-- Reads the count. Returns the error of Redis, if there is one. A key of another type counts as 0, and is replaced.
local function read_count()
  if count then return nil end
  local text = pcall('GET', prefix .. 'hn')
  if type(text) == 'table' and not find(text.err, 'WRONGTYPE', 1, true) then return text.err end
  count = type(text) == 'string' and tonumber(text) or 0
end

-- Returns the number of records of an entry, nil if its list is of another type. It raises other errors, and makes sure that the script may
-- change the list and the count.
local function length(name)
  local has = pcall('LLEN', list_of(name))
  local err = type(has) == 'table' and not find(has.err, 'WRONGTYPE', 1, true) and has.err or read_count()
  if err then error(err, 0) end
  return type(has) == 'number' and has or nil
end

-- Renumbers the records of an entry whose writes were added to a row of the given version and value. The row has the writes up to the
-- version had_n of the entry, whose value then was had ("set": unknown, since the value was set later): their records are dropped.
-- The later ones get lineage, or keep theirs. A record has the value "-" if it cannot be known. save_lists() writes the result. It returns
-- false if the list is of another type or cannot be changed now.
local function renumber(name, had, had_n, version, value, lineage)
  local list = list_of(name)
  local texts = pcall('LRANGE', list, 0, -1)
  if texts.err or read_count() then return false end
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
  renumbered[#renumbered + 1] = { list = list, records = kept, had = #texts }
  return true
end

-- Replaces the records of an entry by one. has is their number, see length().
local function replace_records(name, has, record)
  if not has then call('DEL', list_of(name)) end
  renumbered[#renumbered + 1] = { list = list_of(name), records = { record }, had = has or 0 }
end

-- Drops all records of an entry. length() has returned has.
local function drop_records(name, has)
  call('DEL', list_of(name))
  removed = removed + (has or 0)
end

-- Writes the lists and the count.
local function save_lists()
  for i = 1, #renumbered do
    local r = renumbered[i]
    all('RPUSH', r.list, r.records)
    if r.had > 0 then call('LTRIM', r.list, r.had, -1) end
    removed = removed + r.had - #r.records
  end
  if removed == 0 then return end
  if count > removed then call('SET', prefix .. 'hn', fmt('%.0f', count - removed)) else call('DEL', prefix .. 'hn') end
end


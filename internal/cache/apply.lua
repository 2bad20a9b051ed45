-- apply.lua is the second part of the script that applies a batch of operations. KEYS, ARGV, reply: see plain.lua.

local records, recorded = {}, {} -- answers to operations with an ID: names in order; by name

-- Adds a write of the given kind to the entry's lineage. It begins a new lineage if the entry is clean, or if a restart ended the last one.
local function enter_lineage(s, e, dirty, kind)
  local v, n = e.v, e.n
  if not dirty then
    e.l, e.b, e.w, e.p = s.open, n or '0', v or '0', nil -- step: begin
  -- step: end lineage
  elseif number(e.l) < s.first then -- the base stays: Postgres may lack the writes of the ended lineage
    e.p = fmt('%s;%s,%s,%s', e.p or '', e.l, v, n)
    e.l = s.open
  end
  if kind ~= 'i' and v then -- step: set
    e.w = nil
    if e.p then e.p = string.gsub(e.p, ',[^,;]+,', ',set,') end
  end
end

-- a < b, both 64-bit integers in decimal.
local function less(a, b)
  local high, low = halves(a)
  local h, l = halves(b)
  return high < h or (high == h and low < l)
end

-- Reports whether a counter has the version that a condition names, or exists or does not exist if that is asked.
local function is_version(e, condition)
  local version = match(condition, 'v(%d+)')
  if version then return not e.x and e.n == version end
  if find(condition, 'n', 1, true) then return e.x end -- step: absent
  return not e.x or not find(condition, 'e', 1, true)
end

-- Reports whether a value is within the bounds of a condition. A value that overflows is nil.
local function is_within(value, condition)
  local min, max = match(condition, 'm(%-?%d+)'), match(condition, 'M(%-?%d+)')
  return not (min or max) or (value and not (min and less(value, min)) and not (max and less(max, value)))
end

-- Returns the line for a condition that is not met.
local function unmet(letter, e) return fmt('%s %s %s %d', letter, e.x and '0' or e.v, e.n, e.x and 0 or 1) end

-- Prepares the record of an operation. Returns the line of an operation that cannot be recorded, or nil.
local function prepare_record(s, e, dirty)
  if not e.records then
    e.list = sub(s.meta, 1, -5) .. 'h:' .. sub(KEYS[s.at], #s.meta - 1)
    local has = pcall('LLEN', e.list)
    if type(has) ~= 'number' then return 'e' end
    -- The records of a clean counter have left the list, and an entry without h has none. What is there belongs to an entry that somebody
    -- deleted by hand.
    e.records, e.stray = {}, dirty and e.h and 0 or has
  end
  if not s.unflushed then
    local count = pcall('GET', sub(s.meta, 1, -5) .. 'hn')
    -- A key of another type is replaced. Any other error means that the slot is moving to another node.
    if type(count) == 'table' and not find(count.err, 'WRONGTYPE', 1, true) then return 'e' end
    s.unflushed = type(count) == 'string' and tonumber(count) or 0
  end
  local most = tonumber(ARGV[5])
  if e.a and most then most = most / 2 end -- the list of a refused counter only grows, and must not stop the writes to all others
  if most and s.unflushed - e.stray >= most then return 'h' end
end

-- Applies one operation of any kind to an entry in any state. origin is where it came from if it is recorded. Returns the line of the
-- reply, and whether it has been applied.
local function operate(s, e, op, accept, origin)
  if e.corrupt then return 'e' end
  if e.split then return 'd' end -- an earlier operation is resent, so this one must be, too
  local letter, by, count, condition = match(op, '^(%a?)(%-?%d*)%*?(%d*)%??(.*)$')
  local kind = letter == '' and 'i' or string.lower(letter)
  local dirty = e.v and is_dirty(s, e)
  if not may_dirty and kind ~= 'g' and not dirty then
    return 'b' -- checked before c and w, which would cost a read of Postgres and an entry
  end
  if e.v and not accept and letter ~= string.upper(kind) and is_unchecked(s, e) then
    s.asks = true
    return 'f'
  end
  local unknown = not e.v or e.u
  if unknown and letter ~= string.upper(kind) then return e.v and 'w' or 'c' end
  -- step: version
  if condition ~= '' and not is_version(e, condition) then
    return unmet('v', e)
  end
  if kind == 'g' or (kind == 'd' and e.x) then
    if e.u then return 'u', true end
    local synced = dirty and 0 or 1
    return e.x and fmt('n %s %d', e.n, synced) or fmt('k %s %s %d', e.v, e.n, synced), false
  end

  -- An earlier write of an unsynced run was recorded: so are the others, even of an api without the setting.
  origin = origin or (dirty and e.h and '')
  local several = count ~= ''
  if several and (origin or (e.v and #e.v > 18)) then
    e.split = true
    return 'd'
  end
  local value, n = by, sum(e.n or '0', several and count or '1')
  if not n then return 'e' end -- the version would overflow
  if kind == 'i' then
    value = sum(e.v or '0', by)
    -- step: bounds
    if condition ~= '' and not is_within(value, condition) then
      return unmet('x', e)
    end
    if not value then return 'o' end
  elseif kind == 'd' then
    value = '0'
  end
  local full = origin and prepare_record(s, e, dirty)
  if full then return full end
  enter_lineage(s, e, dirty, kind)
  -- u: base value and base version are unknown; s: only the base version.
  if unknown then e.u = (kind ~= 'i' or e.u == 's') and 's' or 'u' end
  if not e.a and e.epoch ~= s.open then e.joins = true end
  e.v, e.n, e.epoch, e.x, e.changed = value, n, s.open, kind == 'd' or nil, true
  if e.h and not origin then e.h = nil end
  if origin then
    e.h = true
    local amount = kind == 'd' and '' or by
    e.records[#e.records + 1] = concat({ n, value, e.l, kind .. amount, milliseconds(), origin }, ' ')
    s.unflushed, s.recorded = s.unflushed + 1, true
  end
  local line = unknown and 'u' or fmt('a %s %s', value, n)
  return dirty and line or line .. ' +', true
end

-- Returns the recorded answer to an operation ID; nil if the ID is new.
local function replay(record, what)
  local kept = pcall('GET', record)
  if not kept then return nil end
  if type(kept) == 'table' then
    if find(kept.err, 'WRONGTYPE', 1, true) then return 'e' end
    error(kept.err, 0)
  end
  local was, answer = match(kept, '^([^|]*)|(.*)$')
  if was ~= what then return 'm' end
  return 'r ' .. answer
end

-- Applies an operation with an ID, once.
local function once(s, e, op, accept, origin)
  local at = find(op, ':', 1, true)
  local record = KEYS[tonumber(sub(op, 2, at - 1))]
  op = sub(op, at + 1)
  local what = string.lower(op)
  local before = recorded[record]
  if before then return before.what == what and 'r ' .. before.line or 'm' end
  local line = replay(record, what)
  if line then return line end -- step: replay
  local applied
  line, applied = operate(s, e, op, accept, origin)
  if applied or byte(line) == 110 then -- n: it was deleted before
    recorded[record] = { what = what, line = match(line, '^(.-) ?%+?$') } -- without +: a replay makes no key dirty
    records[#records + 1] = record
  end
  return line
end

-- Decodes an entry that MGET returned. A missing entry has no value.
local function open_entry(name, text)
  local e = text and decode(text)
  if e then return e end
  -- MGET returns nothing for a key of another type.
  return { corrupt = text or call('EXISTS', name) == 1 }
end

local recorded_entries = {}

for shard, rest in pairs(left) do
  local meta_at = total + 2 * shard - 1
  local meta = KEYS[meta_at]
  local s = epochs(meta, texts[meta_at])
  local joining, wrote = {}, false
  for _, i in ipairs(rest) do
    local e, lines = open_entry(KEYS[i], texts[i]), {}
    s.at = i
    for op in gmatch(out[i], '[^,]+') do
      local mark, origin = byte(op), nil
      local accept = mark == 33 -- !
      if accept then
        op = sub(op, 2)
        mark = byte(op)
      end
      if mark == 94 then -- ^
        local colon = find(op, ':', 1, true)
        origin, op = ARGV[tonumber(sub(op, 2, colon - 1))] or '', sub(op, colon + 1)
        mark = byte(op)
      end
      lines[#lines + 1] = (mark == 35 and once or operate)(s, e, op, accept, origin) -- #
    end
    if e.records and e.records[1] then
      recorded_entries[#recorded_entries + 1] = e
      s.unflushed = math.max(s.unflushed - e.stray, 0)
    end
    out[i] = concat(lines, '\n')
    if e.joins then joining[#joining + 1] = sub(KEYS[i], #meta - 1) end -- step: join others
    if e.changed then
      wrote = true
      writes[#writes + 1] = KEYS[i]
      writes[#writes + 1] = encode(e)
    end
  end
  has[shard] = math.max(has[shard], join(s, KEYS[meta_at + 1], joining))
  if s.recorded then
    writes[#writes + 1] = sub(meta, 1, -5) .. 'hn'
    writes[#writes + 1] = fmt('%.0f', s.unflushed)
  end
  if wrote and s.changed then
    writes[#writes + 1] = meta
    writes[#writes + 1] = meta_text(s)
  elseif s.asks and s.changed then
    pcall('SET', meta, meta_text(s)) -- so that all checks name the same incarnation; a full Redis refuses this, and check.lua does it
  end
  heads[shard] = concat({ s.open, s.watermark_id, s.first_id, has[shard] }, ' ')
end

if #writes > 0 then call('MSET', unpack(writes)) end
-- If Redis refuses MSET, nothing has been applied. It accepts what follows: it checks its memory and its replicas only before the first
-- write of a script, and LLEN has shown that each list is on this node, unless its slot is not moving. A list that is deleted could not be
-- created again while it is moving.
for i = 1, #recorded_entries do
  local e = recorded_entries[i]
  all('RPUSH', e.list, e.records) -- step: record
  if e.stray > 0 then call('LTRIM', e.list, e.stray, -1) end
end
for i = 1, #records do
  local record = recorded[records[i]]
  call('SET', records[i], record.what .. '|' .. record.line, 'PX', ARGV[2])
end
return concat(heads, '\n') .. '\n' .. concat(out, '\n')

-- apply.lua carries out a batch of operations on counters and puts the keys that they change into the open epochs of their
-- shards. One atomic step: an entry never changes without that. It reads all that it needs with one command, and writes all
-- entries with one.
--
-- KEYS       the entries {aw:07}:c:<key>, each once, those of one shard after the other; then for each shard two: meta and
--            open; then the records of operations that have an ID: {aw:07}:i:<ID>, a NUL, and <key>
-- ARGV[1]    "1": keys that are clean may become dirty; "0": there are too many dirty keys already
-- ARGV[2]    how long records are kept, ms
-- ARGV[3]    how many of the entries each shard has, separated by spaces
-- ARGV[4]    for each entry, separated by spaces, its operations, separated by commas: 5 or i5 increment by 5, 5*3 by 5 in
--            sum, for three callers; s7 set to 7, d delete, g get. A capital letter (I5) takes the operation although the
--            base is unknown, instead of answering c or w. "#9:" before it says that KEYS[9] is its record. Amounts without
--            a letter have 13 digits at most.
--
-- Reply: one string of lines. First a line for each shard: <open> <watermark> <first> <keys>, its epochs in base 36 (see
-- entry.lua) and how many keys are in the open one, 0 if none was added. Then a line for each operation:
--   <entry>                   of g: the entry. Else applied, as the entry is now: if its base b is the version before these
--                             operations, and there is no l, its key has just become dirty
--   a <value> <version>[ +]   applied; +: its key has just become dirty
--   u[ +]                     applied to an unknown base
--   k <value> <version> <synced>   not changed; as it stands. synced is 1 if the entry is not dirty
--   n <version> <synced>      not changed; deleted, or never written (version 0)
--   c                         not applied: there is no entry. Bring the base with hydrate.lua
--   w                         not applied: the same, but there are blind writes that wait for the base
--   d                         not applied: added up, it might overflow unseen, or comes after one of these. Send them one by one
--   o                         not applied: the sum would overflow
--   b                         not applied: too many dirty keys
--   e                         not applied: the entry is not what it should be (somebody else wrote there)
--   r <line>                  not applied again: an operation with this ID was, and this was answered
--   m                         not applied: another operation with this ID was
--
-- An error of any kind comes before the first entry is written: nothing has been applied then.

local may_dirty = ARGV[1] == '1'
local counts, total = {}, 0
for count in gmatch(ARGV[3], '%d+') do
  counts[#counts + 1] = tonumber(count)
  total = total + count
end

local writes = {}            -- names and texts for MSET
local records, recorded = {}, {} -- to be written, in order; by name

-- The run of unsynced writes that this write of kind belongs to, and what it began from where it begins now.
local function live(s, e, dirty, kind)
  local v, n = e.v, e.n
  if not dirty then
    e.l, e.b, e.w, e.p = s.open, n or '0', v or '0', nil -- step: begin
  -- step: end life
  elseif number(e.l) < s.first then -- the base stays: Postgres need not have what the earlier run wrote
    e.p = fmt('%s;%s,%s,%s', e.p or '', e.l, v, n)
    e.l = s.open
  end
  if kind ~= 'i' and v then -- step: set
    e.w = nil
    if e.p then e.p = string.gsub(e.p, ',[^,;]+,', ',set,') end
  end
end

-- Carries out one operation of any kind on an entry in any state. Returns the line to answer, and whether it has been applied.
local function operate(s, e, op)
  if e.corrupt then return 'e' end
  if e.split then return 'd' end -- what comes after one that is sent again is sent again, too
  local letter, by, count = match(op, '^(%a?)(%-?%d*)%*?(%d*)$')
  local kind = letter == '' and 'i' or string.lower(letter)
  local dirty = e.v and is_dirty(s, e)
  if not may_dirty and kind ~= 'g' and not dirty then
    return 'b' -- before the base of a cold key is asked for: that would cost a read and an entry
  end
  local unknown = not e.v or e.u
  if unknown and letter ~= string.upper(kind) then return e.v and 'w' or 'c' end
  if kind == 'g' or (kind == 'd' and e.x) then
    if e.u then return 'u', true end
    local synced = dirty and 0 or 1
    return e.x and fmt('n %s %d', e.n, synced) or fmt('k %s %s %d', e.v, e.n, synced), false
  end

  local several = count ~= ''
  if several and e.v and #e.v > 18 then
    e.split = true
    return 'd'
  end
  local value, n = by, sum(e.n or '0', several and count or '1')
  if not n then return 'e' end -- no counter has been written that often
  if kind == 'i' then
    value = sum(e.v or '0', by)
    if not value then return 'o' end
  elseif kind == 'd' then
    value = '0'
  end
  live(s, e, dirty, kind)
  -- u: the base is unknown for value and version; s: for the version only.
  if unknown then e.u = (kind ~= 'i' or e.u == 's') and 's' or 'u' end
  if not e.a and e.epoch ~= s.open then e.joins = true end
  e.v, e.n, e.epoch, e.x, e.changed = value, n, s.open, kind == 'd' or nil, true
  local line = unknown and 'u' or fmt('a %s %s', value, n)
  return dirty and line or line .. ' +', true
end

-- What an operation with an ID answers that is not carried out, because one with this ID was; nil if there was none.
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

-- Carries out an operation that has an ID.
local function once(s, e, op)
  local at = find(op, ':', 1, true)
  local record = KEYS[tonumber(sub(op, 2, at - 1))]
  op = sub(op, at + 1)
  local what = string.lower(op)
  local before = recorded[record]
  if before then return before.what == what and 'r ' .. before.line or 'm' end
  local line = replay(record, what)
  if line then return line end -- step: replay
  local applied
  line, applied = operate(s, e, op)
  if applied or byte(line) == 110 then -- n: deleted already
    recorded[record] = { what = what, line = match(line, '^(.-) ?%+?$') } -- a replay has not just made its key dirty
    records[#records + 1] = record
  end
  return line
end

-- The entry of any operation that the fast way below does not take: decoded, nothing in it where there is none.
local function open_entry(name, text)
  local e = text and decode(text)
  if e then return e end
  -- MGET is silent about what is no string.
  return { corrupt = text or call('EXISTS', name) == 1 }
end

-- Whether text can stand in the reply as it is: it looks like an entry, and is one line.
local function is_line(text)
  local first = text and byte(text)
  return first and (first == 45 or first >= 48 and first <= 57) and not find(text, '\n', 1, true)
end

local texts = call('MGET', unpack(KEYS, 1, total + 2 * #counts)) -- of the sets open it says nothing
local heads, out, lines = {}, {}, 0
local next_ops = gmatch(ARGV[4], '%S+')
local last = 0
for shard = 1, #counts do
  local meta_at = total + 2 * shard - 1
  local meta = KEYS[meta_at]
  local s = epochs(meta, texts[meta_at])
  local open, watermark, key_at = s.open, s.watermark, #meta - 1 -- {aw:07}:meta, {aw:07}:c:<key>
  local joining, wrote = {}, false
  for i = last + 1, last + counts[shard] do
    local ops, text = next_ops(), texts[i]
    local by, count = tonumber(ops), 1
    if not by then by, count = match(ops, '^(%-?%d+)%*(%d+)$') end
    local v, n, epoch, rest
    if by and text then v, n, epoch, rest = match(text, '^(%-?%d+) (%d+) ([^ ]+)([^\n]*)$') end
    -- The way of nearly all: a read, or an increment of a plain counter that is in the open epoch, or clean.
    local short = v and #v <= 13 and #n <= 13
    if ops == 'g' and is_line(text) then
      lines = lines + 1
      out[lines], text = text, nil
    elseif short and epoch == open then
      text = fmt('%d %d %s%s', v + by, n + count, epoch, rest)
    elseif short and may_dirty and (tonumber(epoch, 36) or math.huge) <= watermark then
      text = fmt('%d %d %s b%s w%s', v + by, n + count, open, n, v)
      joining[#joining + 1] = sub(KEYS[i], key_at)
    else
      local e = open_entry(KEYS[i], text)
      for op in gmatch(ops, '[^,]+') do
        lines = lines + 1
        if byte(op) == 35 then -- #
          out[lines] = once(s, e, op)
        else
          out[lines] = operate(s, e, op)
        end
      end
      if e.joins then joining[#joining + 1] = sub(KEYS[i], key_at) end -- step: join others
      text = nil
      if e.changed then
        wrote = true
        writes[#writes + 1] = KEYS[i]
        writes[#writes + 1] = encode(e)
      end
    end
    if text then
      lines = lines + 1
      out[lines], wrote = text, true
      local at = #writes
      writes[at + 1], writes[at + 2] = KEYS[i], text
    end
  end
  last = last + counts[shard]
  local keys = join(s, KEYS[meta_at + 1], joining) -- step: join
  if wrote and s.changed then
    writes[#writes + 1] = meta
    writes[#writes + 1] = meta_text(s)
  end
  heads[shard] = open .. ' ' .. s.watermark_id .. ' ' .. s.first_id .. ' ' .. keys
end

if #writes > 0 then call('MSET', unpack(writes)) end
for i = 1, #records do
  local record = recorded[records[i]]
  call('SET', records[i], record.what .. '|' .. record.line, 'PX', ARGV[2])
end
return table.concat(heads, '\n') .. '\n' .. table.concat(out, '\n')

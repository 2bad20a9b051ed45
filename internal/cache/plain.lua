-- plain.lua and apply.lua are one script. It applies a batch of operations to counters and puts the keys that it changes into the open
-- epochs of their shards, in one atomic step. It reads everything with one MGET and writes all entries with one MSET. entry.lua stands
-- between the two parts.
--
-- plain.lua does what nearly all calls need: reads, and increments of plain counters. It defines no function, because Redis would create
-- the function again in each call, which takes as long as an operation. apply.lua does the rest: any operation, on an entry in any state.
--
-- KEYS       the entries {aw:07}:c:<key>, each once, sorted by shard; then two for each shard: meta and open; then the records of
--            operations with an ID: {aw:07}:i:<ID>, a NUL, and <key>
-- ARGV[1]    "1": clean keys may become dirty; "0": there are too many dirty keys already
-- ARGV[2]    how long records are kept, ms
-- ARGV[3]    the number of entries of each shard, separated by spaces
-- ARGV[4]    for each entry, separated by spaces, its operations, separated by commas: 5 or i5 increments by 5; 5*3 increments by 5 in
--            total, for three increments; s7 sets to 7, d deletes, g gets. A capital letter (I5) applies the operation even if the base is
--            unknown, instead of answering c or w. A prefix "#9:" means that KEYS[9] is its record. A suffix is a condition (apply.lua
--            reads it): i-1?m0M100v7: the new value must be at least m0 and at most M100, and the version 7; s5?e: the
--            counter must exist; s5?n: it must not. A prefix "!" (before all others), or a capital letter, accepts an unchecked entry
--            instead of answering f. A prefix "^6:" (before "#9:") records the operation, and ARGV[6] says where it came from.
--            Amounts without a letter have at most 13 digits.
-- ARGV[5]    only with recorded operations: the most records of one shard that Postgres lacks; set-aside counters may use half of it
-- ARGV[i]    from 6 on: where recorded operations came from, as in records.lua
--
-- Reply: one string of lines. First a line for each shard: <open> <watermark> <first> <keys>: its epochs in base 36 (see entry.lua) and the
-- number of keys in the open epoch, 0 if none was added. Then a line for each operation:
--   <entry>                   after g, the entry. Otherwise applied, and this is the entry now; if its base b is the version before
--                             these operations, and it has no l, its key has just become dirty
--   a <value> <version>[ +]   applied; +: its key has just become dirty
--   u[ +]                     applied to an unknown base
--   k <value> <version> <synced>   not changed; the current state. synced is 1 if the entry is not dirty
--   n <version> <synced>      not changed; deleted, or never written (version 0)
--   c                         not applied: there is no entry; hydrate it (hydrate.lua)
--   w                         not applied: the same, but there are blind writes that wait for the base
--   f                         not applied: the entry is unchecked (see entry.lua); check it (check.lua)
--   d                         not applied: combined increments that might overflow unnoticed, or an operation after them; send each alone
--   o                         not applied: the sum would overflow
--   x <value> <version> <exists>   not applied: the sum would leave the bounds; the current state. exists is 1 or 0
--   v <value> <version> <exists>   not applied: the counter does not have the version, or does not exist; the current state
--   b                         not applied: too many dirty keys
--   h                         not applied: too many records that Postgres lacks
--   e                         not applied: the entry is corrupt
--   r <line>                  not applied again: an operation with this ID was applied before, with this answer
--   m                         not applied: a different operation with this ID was applied before
--
-- An error occurs before the first entry is written, so nothing has been applied.

local call, find, match, sub, concat = redis.call, string.find, string.match, string.sub, table.concat
local tonumber, unpack = tonumber, unpack

local may_dirty = ARGV[1] == '1'
local counts, total = {}, 0
for count in string.gmatch(ARGV[3], '%d+') do
  counts[#counts + 1] = tonumber(count)
  total = total + count
end

local texts = call('MGET', unpack(KEYS, 1, total + 2 * #counts)) -- false for open, which is a set
local this_run = match(call('INFO', 'replication'), 'master_replid:(%x%x%x%x%x%x%x%x)')
local writes = {}         -- names and texts for MSET
local heads, out = {}, {} -- lines of the reply: by shard, and by entry
local left, has = {}, {}  -- by shard: the entries left to apply.lua, and the number of keys in its open epoch
local some_left = false

local next_ops, i = string.gmatch(ARGV[4], '%S+'), 0
for shard = 1, #counts do
  local meta_at = total + 2 * shard - 1
  local name, meta = KEYS[meta_at], texts[meta_at]
  local open, since, watermark_id, first, run
  if meta then open, since, watermark_id, first, run = match(meta, '^(%w+) (%d+) (%w+) (%w+) (%w+) %w+ %d+ %w+$') end
  local usual = run and run == this_run -- otherwise Redis was restarted, or meta is corrupt
  local watermark, key_at = usual and tonumber(watermark_id, 36), #name - 1 -- {aw:07}:meta, {aw:07}:c:<key>
  local first_number, hydrated = usual and tonumber(first, 36), usual and ' l' .. first -- of entries of this incarnation
  local joining, rest = {}, {}
  for _ = 1, counts[shard] do
    i = i + 1
    local ops, text = next_ops(), usual and texts[i]
    local get = ops == 'g'
    local by, count = not get and tonumber(ops), 1
    if not (by or get) then by, count = match(ops, '^(%-?%d+)%*(%d+)$') end
    local v, n, epoch, more
    if by and text then v, n, epoch, more = match(text, '^(%-?%d+) (%d+) (%S+)([^\n]*)$') end
    local short = by and v and #v <= 13 and #n <= 13
    local number = short and epoch ~= open and tonumber(epoch, 36) -- nil if there are flags
    local lineage, base
    if number and number > watermark and #epoch <= 11 then
      lineage, base = epoch, match(more, '^ b%d+ w%-?%d+$')
      if not base then lineage, base = match(more, '^ l(%w+)( b%d+ w%-?%d+)$') end
      if lineage and (#lineage > 11 or #base > 23) then lineage = nil end -- rare: apply.lua checks it
    end
    if short and epoch == open then
      text = (v + by) .. ' ' .. (n + count) .. ' ' .. epoch .. more
    -- step: checked write
    elseif number and may_dirty and number <= watermark and (number >= first_number or find(more, hydrated, 1, true)) then -- it is clean
      text = (v + by) .. ' ' .. (n + count) .. ' ' .. open .. ' b' .. n .. ' w' .. v -- step: begin
      joining[#joining + 1] = sub(KEYS[i], key_at)
    elseif lineage and tonumber(lineage, 36) >= tonumber(first, 36) then -- step: sealed
      -- It is in the sealed epoch, and its lineage continues.
      text = (v + by) .. ' ' .. (n + count) .. ' ' .. open .. ' l' .. lineage .. base
      joining[#joining + 1] = sub(KEYS[i], key_at)
    else
      local checked
      epoch = get and text and match(text, '^%-?%d+ %d+ (%w+)%C*$')
      if epoch == '0' then
        checked = find(text, hydrated, 1, true) -- step: checked hydrated
      elseif epoch then
        checked = epoch == open or tonumber(epoch, 36) >= first_number -- step: checked read
      end
      if not checked then rest[#rest + 1], text = i, nil end
    end
    out[i] = text or ops
    if by and text then
      local at = #writes
      writes[at + 1], writes[at + 2] = KEYS[i], text
    end
  end
  if rest[1] then left[shard], some_left = rest, true end
  has[shard] = 0
  if joining[1] then
    local shard_open = KEYS[meta_at + 1]
    local added = call('SADD', shard_open, unpack(joining)) -- step: join
    has[shard] = call('SCARD', shard_open)
    if since == '0' or has[shard] == added then -- its first keys: since may be the time of keys that have left
      local t = call('TIME')
      meta = open .. string.format(' %.0f', math.floor(t[1] * 1000 + t[2] / 1000)) .. sub(meta, #open + #since + 2)
      texts[meta_at] = meta
      writes[#writes + 1] = name
      writes[#writes + 1] = meta
    end
  end
  if usual then heads[shard] = open .. ' ' .. watermark_id .. ' ' .. first .. ' ' .. has[shard] end
end

if not some_left then
  if writes[1] then call('MSET', unpack(writes)) end
  return concat(heads, '\n') .. '\n' .. concat(out, '\n')
end

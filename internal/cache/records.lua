-- records.lua reads entries together with the records of their unsynced writes, so that both agree.
--
-- A counter with history has a list {aw:07}:h:<key>: one record for each write that Postgres lacks, in order. The script that changes
-- the entry appends it, and a flush removes it once Postgres has it (trim.lua). An entry that has such a list has the flag h. A record is
--   <version> <value> <lineage> <operation> <ms> <origin>
-- version and value are the counter's after the write, in the same terms as the entry: they count from the base if that is unknown. The
-- value may be "-": unknown. operation: i5 increments by 5, s7 sets to 7, d deletes, r7 or r is a discard to that value or to a deleted
-- counter. ms is Redis's clock. origin is what is known of the request: the caller, a tab, the request's ID, a tab, and a note.
-- {aw:07}:hn is the number of the shard's records.
--
-- KEYS       for each counter: its entry, and its list
-- ARGV[1]    the most records of each counter; 0: all
--
-- Reply: for each counter: its entry, false if there is none or it is of another type, and an array of its records, or 0 if the list is of
-- another type.

local out, last = {}, tonumber(ARGV[1]) - 1
for i = 1, #KEYS, 2 do
  local records = redis.pcall('LRANGE', KEYS[i + 1], 0, last)
  out[i], out[i + 1] = redis.call('MGET', KEYS[i])[1], records.err and 0 or records
end
return out

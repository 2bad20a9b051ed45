-- evict.lua removes entries that are clean and unchanged since the caller read them.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[i+1]  entry {aw:07}:c:<key>
-- ARGV[i]    the entry as it was read
--
-- Reply: the number of removed entries.

local watermark = epochs(KEYS[1], call('GET', KEYS[1])).watermark
local removed = {}
for i = 1, #ARGV do
  local text = ARGV[i]
  local epoch, flags = match(text, '^%-?%d+ %d+ (%w+):?(%l*)')
  if epoch and number(epoch) <= watermark and not find(flags, 'a', 1, true) and pcall('GET', KEYS[i + 1]) == text then -- step: check
    removed[#removed + 1] = KEYS[i + 1]
  end
end
if #removed == 0 then return 0 end
return call('UNLINK', unpack(removed))

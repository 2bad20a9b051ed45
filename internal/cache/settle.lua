-- settle.lua ends that keys are set aside, after Postgres has committed what their entries were.
--
-- KEYS[1]    {aw:07}:meta
-- KEYS[2]    {aw:07}:open
-- KEYS[3]    {aw:07}:sealed
-- KEYS[4]    {aw:07}:retry
-- KEYS[5]    {aw:07}:dead
-- KEYS[i+5]  entry {aw:07}:c:<key>
-- ARGV[1]    TTL of a clean entry, ms
-- then for each key two: key, and its entry as it was committed ("" if there was none)
--
-- An entry that is still the same becomes clean: with epoch 0, since its own may be one whose set it is not in, and with a new
-- ID for the open epoch, so that its next life has another number. One that was written meanwhile joins the open epoch.
--
-- Reply: how many became clean.

local s = epochs(KEYS[1], call('GET', KEYS[1]))
free(KEYS[5])
local clean, joining = 0, {}
for i = 1, #KEYS - 5 do
  local key, name = ARGV[2 * i], KEYS[i + 5]
  local e, corrupt, text = load(name)
  if not corrupt and (not e or e.a) then
    call('ZREM', KEYS[4], key)
    call('HDEL', KEYS[5], key)
    if e and text == ARGV[2 * i + 1] then
      call('SREM', KEYS[2], key)
      call('SREM', KEYS[3], key)
      put(name, { v = e.v, n = e.n, x = e.x, epoch = '0', l = '0' }, ARGV[1])
      clean = clean + 1
    elseif e then
      e.a, e.epoch = nil, s.open
      put(name, e)
      joining[#joining + 1] = key
    end
  end
end
rejoin(s, KEYS[2], joining)
if clean > 0 then renew(s) end
save(s)
if clean > 0 then pcall('PUBLISH', 'aw:acks', sub(KEYS[1], 1, -6)) end
return clean

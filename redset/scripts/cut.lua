-- Removes the lowest queued items of a range of scores. What is leased of them stays leased.
-- KEYS: queue, then with second keys: leases, items
-- ARGV: how many, lowest and highest score, whether there is a key=
-- Returns how many
-- include: check
-- include: due
local queue, leases, items = unpack(KEYS)
local num, lowest, highest, keyed = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4] == '1'
-- include: leases
local members = call('ZRANGEBYSCORE', queue, lowest, highest, 'LIMIT', 0, num)
local n = #members
if n == 0 then return 0 end
if keyed then call('HLEN', items) end
local gone = {}
if leases and call('HLEN', leases) > 0 then
  for i, value in ipairs(values_of(members)) do
    if value and owner_of(value) == QUEUED then gone[#gone + 1] = members[i] end
  end
end
local from = call('ZCOUNT', queue, '-inf', '(' .. lowest)
call('ZREMRANGEBYRANK', queue, from, from + n - 1)
if #gone > 0 then call('HDEL', leases, unpack(gone)) end
if keyed then call('HDEL', items, unpack(members)) end
return n

-- Removes the lowest queued items of a range of scores. What is leased of them stays leased.
-- KEYS: queue, then with second keys: none, leases, items
-- ARGV: how many, lowest and highest score, whether there is a key=, how many to read at first
-- Returns {how many, whether there may be more}
-- include: check
-- include: due
local queue, none, leases, items = unpack(KEYS)
local num, lowest, highest, keyed = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4] == '1'
-- include: leases
-- include: portions
local members = {}
local n, more = in_portions(num, tonumber(ARGV[5]), function(at, want)
  local part = call('ZRANGEBYSCORE', queue, lowest, highest, 'LIMIT', at, want)
  members = append(members, part)
  return part, 1
end)
if n == 0 then return {0, 0} end
cut(members, n)
if keyed then call('HLEN', items) end
if none then call('HDEL', none, '') end
local gone = leases and with_attempts(members, values_of(members)) or {}
local from = call('ZCOUNT', queue, '-inf', '(' .. lowest)
call('ZREMRANGEBYRANK', queue, from, from + n - 1)
bulk('HDEL', leases, gone)
if keyed then call('HDEL', items, unpack(members)) end
return {n, (more or n == num) and 1 or 0}

-- Removes the lowest queued items of a range of scores. Leased items stay leased.
-- KEYS: queue; with second keys none, leases; with key= items
-- ARGV:
--   num: number      limit of items
--   lowest, highest  scores
--   first: number    number to read at first
-- Returns {number removed, whether there may be more}
-- include: check
-- include: due
-- include: leases
-- include: portions
local members = {}
local n, more = in_portions(num, first, function(at, want)
  local part = call('ZRANGEBYSCORE', queue, lowest, highest, 'LIMIT', at, want)
  members = append(members, part)
  return part, 1
end)
if n == 0 then return {0, 0} end
cut(members, n)
if items then call('HLEN', items) end
if none then call('HDEL', none, '') end
local gone = leases and with_attempts(members, values_of(members)) or {}
local from = call('ZCOUNT', queue, '-inf', '(' .. lowest)
call('ZREMRANGEBYRANK', queue, from, from + n - 1)
bulk('HDEL', leases, gone)
if items then call('HDEL', items, unpack(members)) end
return {n, (more or n == num) and 1 or 0}

-- Removes and returns items of the groups whose turn it is. Each needs a free slot and starts an
-- interval, and holds no slot.
-- KEYS: queue, none, leased, leases, calls, dead, counts, items, meta, ready, resting, waiting, working, limits, shared, index
-- ARGV:
--   num: number           limit of items
--   max_attempts: number
--   limit: number         limit of expired leases to return
--   first: number         number of items to read at first
--   @grouping
-- Returns what `take` returns for a set with a key=
-- include: check
-- include: counting
-- include: due
-- include: leases
-- First, since they free memory: the removals of this step, of nothing.
call('ZREM', none, '')
call('HDEL', none, '')
-- Without it, undecodable items could not be kept.
call('XLEN', dead)
call('HLEN', items)
local clock = call('TIME')
local now = milliseconds(clock)
-- include: grouping
-- include: portions
local back, died, expired_more = 0, 0, false
if call('ZCOUNT', leased, '-inf', now) > 0 then
-- include: expiring
  back, died, expired_more = expire(now, math.max(limit / 2, limit - num), first)
end
-- include: waking
local takes, passes, hand, token, expiry = true, false, 0, '', ''
local has_own = call('EXISTS', limits, shared) > 0
-- include: turning
local is_mended = false
-- Not after items were taken: they would be lost if a command were refused.
if got == 0 and budget > 0 and call('ZCARD', queue) > 0 then
-- include: expiring
-- include: mending
end
local more = got < asked and (expired_more or overslept or is_mended)
if got < asked and not more then
  more = (got == num or budget <= 0 or bytes >= BYTES) and call('EXISTS', ready) == 1
end
for i = 1, got do taken[2 * i - 1] = texts[i] end
return {more and 1 or 0, taken, died}

-- Leases items of the groups whose turn it is, for a time. If it is sent again with the same token,
-- within that time and before the first of them is settled, it returns the same ones. Later, the rest
-- of them returns to the queue before others are leased.
-- KEYS: queue, none, leased, leases, calls, dead, counts, paused, items, meta, ready, resting, waiting, working, limits, shared, index
-- ARGV:
--   token
--   num: number           limit of items
--   ttl: number           time of the leases in ms
--   max_attempts: number
--   limit: number         limit of expired leases to return
--   hand: number          number of leases that the worker has in hand
--   passes: flag          skips suspects that may not be in such a cohort
--   first: number         number of items to read at first
--   @grouping
-- Returns what `lease` returns, with payloads
-- include: bytes
-- Time for which a token is known after its lease, in ms: a client's retries may take as long.
local KEPT = 600000
local call = redis.call
-- First, since it frees memory: the removals of this step, of nothing.
call('ZREM', none, '')
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local held = call('ZSCORE', calls, token)
-- From a set that is paused, only a call that is sent again gets its leases.
local has_own = call('EXISTS', limits, shared, paused) > 0
local is_paused, NOTHING = has_own and call('EXISTS', paused) == 1, {'0', 0, 0, 0, 0, {}, {}, {}}
if is_paused and not held then return NOTHING end
-- include: leasing_in_turn
-- include: check
-- include: counting
-- include: due
-- include: leases
-- include: grouping
-- include: portions
if held then
  call('HDEL', none, '')
-- include: resending
end
if is_paused then return NOTHING end
local back, died, expired_more = 0, 0, false
if call('ZCOUNT', leased, '-inf', now) > 0 then
-- include: expiring
  back, died, expired_more = expire(now, math.max(limit / 2, limit - num), first)
end
if clock[2] % 16 == 0 then
  local old = call('ZRANGEBYSCORE', calls, '-inf', now - KEPT, 'LIMIT', '0', limit)
  if #old > 0 then call('ZREM', calls, unpack(old)) end
end
-- include: waking
local takes, expiry = false, string.format('%d', now + ttl)
-- include: turning
local is_mended = false
if got < num and not stopped and budget > 0 and bytes < BYTES and call('ZCARD', queue) > 0 then
-- include: expiring
-- include: mending
end
if got > 0 then call('ZADD', calls, expiry, token) end
local more = got < asked and not stopped and (expired_more or overslept or is_mended)
if got < asked and not (stopped or more) then
  more = (got == num or budget <= 0 or bytes >= BYTES) and call('EXISTS', ready) == 1
end
-- A call that continues, because bytes ended this step, has as many in hand as it requests.
local in_hand = hand + got
if more then in_hand = math.max(in_hand, math.min(hand + asked, bound)) end
if got > 0 and (rounds > 1 or more) then
  local from = 1
-- include: recording
end
if stopped then more = 2 else more = more and 1 or 0 end
return {expiry, more, dropped, bound < math.huge and bound or 0, died, taken, attempted, texts}

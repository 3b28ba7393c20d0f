-- Returns the number of groups that may start, and the time until there may be more. It only reads.
-- KEYS: queue, none, leased, paused, ready, resting, waiting
-- ARGV:
--   finish: flag  also reports the end: that nothing is queued or leased
-- Returns the number, and the milliseconds until the next rest or lease ends or item falls due (-1:
-- none)
local clock = redis.call('TIME')
local now, next_at = clock[1] * 1000 + math.floor(clock[2] / 1000), nil
local ms = string.format('%.0f', now)
local available = redis.call('ZCARD', ready)
for _, key in ipairs({resting, waiting, leased}) do
  local first = redis.call('ZRANGEBYSCORE', key, '(' .. ms, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if first and (not next_at or first + 0 < next_at) then next_at = first + 0 end
  available = available + redis.call('ZCOUNT', key, '-inf', ms)
end
-- EXISTS also makes the server announce a pause, and its end, to this connection.
local is_paused = redis.call('EXISTS', paused) == 1
-- The end wakes all waiters.
local is_over = finish and redis.call('ZCARD', queue) + redis.call('ZCARD', leased) == 0
if is_over then return {1000000, -1} end
if is_paused then return {0, -1} end
if not next_at or next_at == math.huge then return {available, -1} end
-- Rounded up, and one more, since leases are counted in milliseconds. An hour is the limit.
return {available, math.min(math.floor(next_at - now) + 1, 3600000)}

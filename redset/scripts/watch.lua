-- Returns the number of items that a consumer may have, and the time until there may be more. It
-- only reads.
-- KEYS: queue; with second keys none, leased, paused
-- ARGV:
--   due: flag     only items that are due
--   finish: flag  also reports the end: that nothing is queued or leased
-- Returns the number, and the milliseconds until the next item falls due or its lease ends (-1:
-- none)
local clock = redis.call('TIME')
local now, next_at = clock[1] * 1000 + math.floor(clock[2] / 1000), nil
local function count(key, from, to, unit)
  local range = redis.call('ZRANGEBYSCORE', key, '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if range[2] and (not next_at or range[2] * unit < next_at) then next_at = range[2] * unit end
  return redis.call('ZCOUNT', key, '-inf', to)
end
local available
if due then
  local now_due = clock[1] .. '.' .. string.format('%06d', tonumber(clock[2]))
  available = count(queue, now_due, now_due, 1000)
else
  available = redis.call('ZCARD', queue)
end
if leased then
  local ms = string.format('%.0f', now)
  available = available + count(leased, ms, ms, 1)
end
-- EXISTS also makes the server announce a pause, and its end, to this connection.
if paused and redis.call('EXISTS', paused) == 1 then
  local is_over = finish and redis.call('ZCARD', queue) + redis.call('ZCARD', leased) == 0
  return {is_over and 1000000 or 0, -1}
end
if not next_at then
  -- The end wakes all waiters.
  if finish and available == 0 then available = 1000000 end
  return {available, -1}
end
-- Rounded up, and one more, since leases are counted in milliseconds. An hour is the limit.
return {available, math.min(math.floor(next_at - now) + 1, 3600000)}

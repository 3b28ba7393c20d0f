-- Included by steps that count groups, and only read. Returns the number of groups that may start, of
-- those that rest, and of those that have items in work. A group whose rest is over or whose first
-- item is due may start, although no step has put it in line yet. Of such groups that rested, LOOKS
-- are looked at: one may have no items.
local LOOKS = 100
local function count_groups(ready, resting, waiting, working, index_of, now)
  local milli = string.format('%.0f', now)
  local may = redis.call('ZCARD', ready) + redis.call('ZCOUNT', waiting, '-inf', milli)
  for _, group in ipairs(redis.call('ZRANGEBYSCORE', resting, '-inf', milli, 'LIMIT', '0', LOOKS)) do
    if redis.call('EXISTS', index_of .. group) == 1 and not redis.call('ZSCORE', ready, group) then
      may = may + 1
    end
  end
  return may, redis.call('ZCOUNT', resting, '(' .. milli, '+inf'), redis.call('HLEN', working)
end

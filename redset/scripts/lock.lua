-- Takes a lock that is free or has expired.
-- KEYS: lock
-- ARGV:
--   seconds  until it expires
--   digits   the holder's
-- Returns whether the caller has it; also if it is sent again by a client that lost the reply
local held = redis.call('GET', lock)
if held and held:sub(-#digits) == digits then return 1 end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
if held then
  local ends = tonumber(held)
  if not ends or ends + 0.01 >= now then return 0 end
end
redis.call('SET', lock, string.format('%.6f', now + seconds) .. digits)
return 1

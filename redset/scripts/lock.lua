-- Takes a lock that is free or has expired.
-- KEYS: the lock
-- ARGV: how many seconds it is to last, the holder's digits
-- Returns whether it is the caller's; sent again by a client that lost the answer, it still is
local held = redis.call('GET', KEYS[1])
if held and held:sub(-#ARGV[2]) == ARGV[2] then return 1 end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
if held then
  local ends = tonumber(held)
  if not ends or ends + 0.01 >= now then return 0 end
end
redis.call('SET', KEYS[1], string.format('%.6f', now + ARGV[1]) .. ARGV[2])
return 1

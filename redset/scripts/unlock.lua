-- Releases a lock that is still the caller's.
-- KEYS: lock
-- ARGV:
--   digits  the holder's
local held = redis.call('GET', lock)
if held and held:sub(-#digits) == digits then return redis.call('UNLINK', lock) end
return 0

-- Releases a lock that is still the caller's.
-- KEYS: the lock
-- ARGV: the holder's digits
local held = redis.call('GET', KEYS[1])
if held and held:sub(-#ARGV[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end
return 0

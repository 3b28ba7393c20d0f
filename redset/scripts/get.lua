-- Returns the payload of a queued item.
-- KEYS: queue, none, items
-- ARGV: member
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return false end
return redis.call('HGET', KEYS[3], ARGV[1])

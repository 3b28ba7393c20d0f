-- Returns the payload of a queued item.
-- KEYS: queue, none, items
-- ARGV:
--   member
if not redis.call('ZSCORE', queue, member) then return false end
return redis.call('HGET', items, member)

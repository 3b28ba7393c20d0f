-- Removes items by identity, also leased ones.
-- ungrouped:
-- KEYS: queue, none, leased, leases; with key= items
-- grouped:
-- KEYS: queue, none, leased, leases, items, meta, ready, resting, waiting, working, limits, shared, index
-- both:
-- ARGV:
-- grouped:
--   @grouping
-- both:
--   members...
-- Returns the number that was queued or leased
-- The short way: nothing is leased, so nothing has a record. With the members as its only arguments,
-- a step of one member has two thirds of the server's instructions.
if redis.call('EXISTS', leases, leased) == 0 then
  if items then
    redis.call('HLEN', items)
    redis.call('HDEL', none, '')
  end
-- ungrouped:
  local gone = redis.call('ZREM', queue, unpack(ARGV))
  if items then redis.call('HDEL', items, unpack(ARGV)) end
-- grouped:
  local gone = redis.call('ZREM', queue, unpack(ARGV, members_at))
  redis.call('HDEL', items, unpack(ARGV, members_at))
-- both:
  return gone
end
-- include: check
if wrong_type(queue, 'zset') or wrong_type(leased, 'zset') or wrong_type(leases, 'hash')
  or (items and wrong_type(items, 'hash')) then
  return redis.error_reply(WRONG_TYPE)
end
call('ZREM', none, '')
call('HDEL', none, '')
-- ungrouped:
-- include: leases
-- both:
-- grouped:
-- include: due
-- include: leases
-- include: grouping
-- both:
-- include: discarding
-- ungrouped:
return discard(ARGV)
-- grouped:
return discard({unpack(ARGV, members_at)})
-- both:

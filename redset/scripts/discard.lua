-- Removes items by identity, also leased ones.
-- KEYS: queue, none, leased, leases; with key= items
-- ARGV:
--   members...
-- Returns the number that was queued or leased
-- The short way: nothing is leased, so nothing has a record. With the members as its only arguments,
-- a step of one member has two thirds of the server's instructions.
if redis.call('EXISTS', leases, leased) == 0 then
  if items then
    redis.call('HLEN', items)
    redis.call('HDEL', none, '')
  end
  local gone = redis.call('ZREM', queue, unpack(ARGV))
  if items then redis.call('HDEL', items, unpack(ARGV)) end
  return gone
end
-- include: check
if wrong_type(queue, 'zset') or wrong_type(leased, 'zset') or wrong_type(leases, 'hash')
  or (items and wrong_type(items, 'hash')) then
  return redis.error_reply(WRONG_TYPE)
end
call('ZREM', none, '')
call('HDEL', none, '')
-- include: leases
-- include: discarding
return discard(ARGV)

-- Acknowledges a few leases of one token: the short way of `settle`, with fewer keys and arguments.
-- KEYS: none, leased, leases, calls; with key= items
-- ARGV:
--   token
--   members...
-- Returns the number of leases, or -1 if nothing was written: one of them is lost, or its item was
--   added while it was leased
local call, plain = redis.call, token .. '0'
for _, value in ipairs(call('HMGET', leases, unpack(ARGV, members_at))) do
  if not value or string.sub(value, 1, 17) ~= plain then return -1 end
end
call('ZCARD', calls)
if items then call('HLEN', items) end
-- The first removal is a ZREM, which needs no trial before it.
call('HDEL', none, '')
call('ZREM', leased, unpack(ARGV, members_at))
local gone = call('HDEL', leases, unpack(ARGV, members_at))
if items then call('HDEL', items, unpack(ARGV, members_at)) end
call('ZREM', calls, token)
return gone

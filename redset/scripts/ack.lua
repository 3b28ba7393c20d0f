-- Acknowledges a few leases of one token: the short way of `settle`, with fewer keys and arguments.
-- ungrouped:
-- KEYS: none, leased, leases, calls; with key= items
-- grouped:
-- KEYS: none, leased, leases, calls, items, meta, ready, resting, waiting, working, limits, shared, index
-- both:
-- ARGV:
-- grouped:
--   @grouping
-- both:
--   token
--   members...
-- Returns the number of leases, or -1 if nothing was written: one of them is lost, or its item was
--   added while it was leased
-- ungrouped:
local call, plain = redis.call, token .. '0'
for _, value in ipairs(call('HMGET', leases, unpack(ARGV, members_at))) do
  if not value or string.sub(value, 1, 17) ~= plain then return -1 end
end
-- grouped:
-- include: check
-- include: due
-- include: leases
-- include: grouping
local plain, slots = token .. '0', {}
for i, value in ipairs(call('HMGET', leases, unpack(ARGV, members_at))) do
  if not value or sub(value, 1, 17) ~= plain then return -1 end
  slots[2 * i - 1], slots[2 * i] = sub(value, 19, 18 + byte(value, 18)), ARGV[members_at + i - 1]
end
-- both:
call('ZCARD', calls)
if items then call('HLEN', items) end
-- The first removal is a ZREM, which needs no trial before it.
call('HDEL', none, '')
call('ZREM', leased, unpack(ARGV, members_at))
-- grouped:
local ended = free(slots)
-- both:
local gone = call('HDEL', leases, unpack(ARGV, members_at))
if items then call('HDEL', items, unpack(ARGV, members_at)) end
call('ZREM', calls, token)
-- grouped:
line_up(ended)
-- both:
return gone

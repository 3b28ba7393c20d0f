-- Removes and returns the lowest items, and expired leases if these are too few. Of a set with
-- groups only those of a range: take_in_turn takes others.
-- Its first write frees memory: it works on a full server.
-- KEYS: queue; with second keys none, leased, leases, calls, dead, counts; with key= items
-- ARGV:
--   num: number                limit of items
--   due: flag                  only items that are due
--   max_attempts: number
--   limit: number              limit of expired leases to return
--   first: number              number of items to read at first
--   lowest, highest: optional  a range of scores; with it due is ignored, and no lease is returned
-- Returns {whether there may be more, {member, score, ...; with a key= payload, score, ...}, number
--   of new dead letters, since their leases had expired}
-- include: check
-- include: counting
-- include: due
-- include: leases
-- include: portions
-- ungrouped:
-- include: expiring
-- both:
-- Without it, undecodable items could not be kept.
if dead then call('XLEN', dead) end
if items then call('HLEN', items) end
-- A user who may not use TIME takes items that need no time.
local clock = due and call('TIME') or redis.pcall('TIME')
local function read(at, want)
  if lowest or due then
    local from, to = lowest or '-inf', highest or due_until(clock)
    return call('ZRANGEBYSCORE', queue, from, to, 'WITHSCORES', 'LIMIT', at, want)
  end
  return call('ZRANGE', queue, at, at + want - 1, 'WITHSCORES')
end
local found, members, n, more
local died = 0
local function find()
  found, members = {}, {}
  n, more = in_portions(num, first, function(at, want)
    local part = read(at, want)
    local names, payloads = members_in(part, items)
    members, found = append(members, names), append(found, part)
    return names, 1, payloads
  end)
  cut(found, 2 * n)
  cut(members, n)
end
find()
-- ungrouped:
if n < num and not more and leased and not lowest and not clock.err then
  local now, back = milliseconds(clock), nil
  back, died, more = expire(now, limit, first)
  if back > 0 then
    local expired_more = more
    find()
    more = n < num and (more or expired_more)
  else
    heal(now, limit)
  end
end
-- both:
if n == 0 then return {more and 1 or 0, found, died} end
-- A record of attempts ends with its item. The record of an item that is also held does not.
local gone = leases and call('HLEN', leases) > 0 and with_attempts(members, values_of(members)) or {}
if items or #gone > 0 then call('HDEL', none, '') end
local from = lowest and call('ZCOUNT', queue, '-inf', '(' .. lowest) or 0
call('ZREMRANGEBYRANK', queue, from, from + n - 1)
bulk('HDEL', leases, gone)
if items then call('HDEL', items, unpack(members)) end
return {more and 1 or 0, found, died}

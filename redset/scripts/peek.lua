-- Returns items by position without removing them.
-- KEYS: queue; with key= none, items
-- ARGV:
--   position: number  of the first item
--   num: number       limit of items
--   due: flag         only items that are due
--   first: number     number to read at first
-- Returns {whether there may be more, {member, score, ...; with a key= payload, score, ...}}
-- include: due
-- include: portions
local size
local stop = '+inf'
if due then
  stop = due_until()
  size = redis.call('ZCOUNT', queue, '-inf', stop)
else
  size = redis.call('ZCARD', queue)
end
if position < 0 then position = size + position end
local last = math.min(position + num, size) - 1
if position < 0 or last < position then return {0, {}} end
local found = {}
local n, more = in_portions(last - position + 1, first, function(at, want)
  local part = redis.call('ZRANGE', queue, position + at, position + at + want - 1, 'WITHSCORES')
  local names, payloads = members_in(part, items)
  found = append(found, part)
  return names, 1, payloads
end)
return {more and 1 or 0, cut(found, 2 * n)}

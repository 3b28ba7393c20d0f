-- Returns items by position without removing them.
-- KEYS: queue, none, items (with a key=)
-- ARGV: first position, how many, whether only what is due, how many to read at first
-- Returns {whether there may be more, {member, score, ...; with a key= payload, score, ...}}
-- include: due
-- include: portions
local queue, items, first, num = KEYS[1], KEYS[3], tonumber(ARGV[1]), tonumber(ARGV[2])
local size
local stop = '+inf'
if ARGV[3] == '1' then
  stop = due_until()
  size = redis.call('ZCOUNT', queue, '-inf', stop)
else
  size = redis.call('ZCARD', queue)
end
if first < 0 then first = size + first end
local last = math.min(first + num, size) - 1
if first < 0 or last < first then return {0, {}} end
local found = {}
local n, more = in_portions(last - first + 1, tonumber(ARGV[4]), function(at, want)
  local part = redis.call('ZRANGE', queue, first + at, first + at + want - 1, 'WITHSCORES')
  local names, payloads = members_in(part, items)
  found = append(found, part)
  return names, 1, payloads
end)
return {more and 1 or 0, cut(found, 2 * n)}

-- Returns items by position without removing them.
-- KEYS: queue, none, items (with a key=)
-- ARGV: first position, how many, whether only what is due
-- Returns member, score, ...; with a key= payload, score, ...
-- include: due
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
if first < 0 or last < first then return {} end
local found = redis.call('ZRANGE', queue, first, last, 'WITHSCORES')
if items and #found > 0 then
  local members = {}
  for i = 1, #found, 2 do members[#members + 1] = found[i] end
  for i, payload in ipairs(redis.call('HMGET', items, unpack(members))) do
    found[2 * i - 1] = payload
  end
end
return found

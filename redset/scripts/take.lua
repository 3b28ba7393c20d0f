-- Removes and returns the lowest items. Its first write frees memory: it works on a full server.
-- KEYS: queue, dead (where there can be dead letters), items (with a key=)
-- ARGV: how many, whether only what is due
-- Returns member, score, ...; with a key= payload, score, ...
-- include: check
-- include: due
local queue, dead, items, num, due = KEYS[1], KEYS[2], KEYS[3], tonumber(ARGV[1]), ARGV[2] == '1'
-- What cannot be decoded could not be kept.
if dead and wrong_type(dead, 'stream') then return redis.error_reply(WRONG_TYPE) end
local found
if due then
  found = redis.call('ZRANGEBYSCORE', queue, '-inf', due_until(), 'WITHSCORES', 'LIMIT', 0, num)
else
  found = redis.call('ZRANGE', queue, 0, num - 1, 'WITHSCORES')
end
local n = #found / 2
if n == 0 then return found end
local members = {}
for i = 1, n do members[i] = found[2 * i - 1] end
if items then
  for i, payload in ipairs(redis.call('HMGET', items, unpack(members))) do
    found[2 * i - 1] = payload
  end
end
redis.call('ZREMRANGEBYRANK', queue, 0, n - 1)
if items then redis.call('HDEL', items, unpack(members)) end
return found

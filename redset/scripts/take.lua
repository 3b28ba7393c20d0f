-- Removes and returns the lowest items, with those whose lease is over where there are too few.
-- Its first write frees memory: it works on a full server.
-- KEYS: queue, then with second keys: none, leased, leases, calls, dead, items (with a key=)
-- ARGV: how many, whether only what is due, most attempts, how many expired leases to give back;
--   then, of a range of scores, which ends what is due and gives back nothing: lowest, highest
-- Returns member, score, ...; with a key= payload, score, ...
-- include: check
-- include: due
local queue, none, leased, leases, calls, dead, items = unpack(KEYS)
local num, due, max = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3])
-- include: leases
-- include: expiring
-- What cannot be decoded could not be kept.
if dead and wrong_type(dead, 'stream') then return redis.error_reply(WRONG_TYPE) end
if items then call('HLEN', items) end
local clock = call('TIME')
local low, high = ARGV[5], ARGV[6]
local function lowest()
  if low then
    return call('ZRANGEBYSCORE', queue, low, high, 'WITHSCORES', 'LIMIT', 0, num)
  end
  if due then
    return call('ZRANGEBYSCORE', queue, '-inf', due_until(clock), 'WITHSCORES', 'LIMIT', 0, num)
  end
  return call('ZRANGE', queue, 0, num - 1, 'WITHSCORES')
end
local found = lowest()
if #found < 2 * num and leased and not low then
  local now, limit = milliseconds(clock), tonumber(ARGV[4])
  if expire(now, limit) > 0 then
    found = lowest()
  else
    heal(now, limit)
  end
end
local n = #found / 2
if n == 0 then return found end
local members = {}
for i = 1, n do members[i] = found[2 * i - 1] end
if items then
  for i, payload in ipairs(call('HMGET', items, unpack(members))) do
    found[2 * i - 1] = payload
  end
end
-- Attempts end with the item; the record of one that is held back as well does not.
local gone = leases and call('HLEN', leases) > 0 and with_attempts(members, values_of(members)) or {}
if items or #gone > 0 then call('HDEL', none, '') end
local from = low and call('ZCOUNT', queue, '-inf', '(' .. low) or 0
call('ZREMRANGEBYRANK', queue, from, from + n - 1)
bulk('HDEL', leases, gone)
if items then call('HDEL', items, unpack(members)) end
return found

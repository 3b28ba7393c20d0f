-- Puts items of an exported set back, where they are not there.
-- KEYS: queue, then with second keys: none, leases, items (with a key=)
-- ARGV: score, member, attempts, last error, payload, ...
-- Returns how many were queued
local call = redis.call
local queue, none, leases, items = unpack(KEYS)
-- include: leases
local queued = 0
for i = 1, #ARGV, 5 do
  local score, member, attempts, last = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if call('ZADD', queue, 'NX', score, member) == 1 then
    queued = queued + 1
    if items then call('HSET', items, member, ARGV[i + 4]) end
    if attempts ~= '0' and leases then
      call('HSET', leases, member, lease_value(QUEUED, attempts, score, '', last))
    end
  end
end
return queued

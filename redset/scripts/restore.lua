-- Puts members back that were taken and could not be decoded, where no dead letters can be kept.
-- The removal of nothing is there for a full server, which lets a script write on after it.
-- KEYS: queue
-- ARGV: score ('' where it is not known: the lowest that there is, else 0), member, ...
redis.call('ZREMRANGEBYRANK', KEYS[1], 1, 0)
local lowest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or '0'
for i = 1, #ARGV, 2 do
  if ARGV[i] == '' then ARGV[i] = lowest end
end
return redis.call('ZADD', KEYS[1], 'NX', unpack(ARGV))

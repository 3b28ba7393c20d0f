-- Puts members back that were taken and could not be decoded, where no dead letters can be kept.
-- KEYS: queue
-- ARGV: score, member, ...
redis.call('ZREMRANGEBYRANK', KEYS[1], 1, 0)
return redis.call('ZADD', KEYS[1], 'NX', unpack(ARGV))

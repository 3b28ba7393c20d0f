-- Counts what is due on the server's clock.
-- KEYS: queue
-- include: due
return redis.call('ZCOUNT', KEYS[1], '-inf', due_until())

-- Counts the items that are due on the server's clock.
-- KEYS: queue
-- include: due
return redis.call('ZCOUNT', queue, '-inf', due_until())

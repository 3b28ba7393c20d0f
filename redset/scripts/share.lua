-- Shares limits of groups among the processes of a crawl. They last for some seconds after it.
-- KEYS: shared
-- ARGV:
--   seconds: number
--   limits...(group, limit, ms)  the group '' has those of groups without limits of their own; the
--                                limit '-' is the caller's, 0 none
-- Returns 1 if limits were shared before
local known = redis.call('EXISTS', shared)
for i = limits_at, #ARGV, limits_width do
  -- fields: limits at i
  redis.call('HSET', shared, group, limit .. ' ' .. ms)
end
redis.call('EXPIRE', shared, seconds)
return known

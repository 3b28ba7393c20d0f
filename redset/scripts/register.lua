-- Enters a set into the registry, and drops entries that no process has renewed for 30 days.
-- KEYS: registry
-- ARGV:
--   name
--   entry          JSON of the set after its first field, without the opening brace
--   limit: number  number of entries to look at for old ones
-- Returns the number of entries that it dropped
local HOUR, DAYS = 3600, 2592000
local hour = math.floor(redis.call('TIME')[1] / HOUR) * HOUR
redis.call('HSET', registry, name, string.format('{"seen":%d, ', hour) .. entry)
local dropped, found = 0, redis.call('HRANDFIELD', registry, limit, 'WITHVALUES')
for i = 1, #found, 2 do
  local seen = tonumber(string.match(found[i + 1], '"seen":(%d+)') or hour)
  if seen < hour - DAYS then dropped = dropped + redis.call('HDEL', registry, found[i]) end
end
return dropped

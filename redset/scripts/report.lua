-- Adds up what a process did with a set, and keeps a line about the process. None of this holds
-- work. These are the only keys of a set that expire.
-- KEYS: counts, none, workers, paused
-- ARGV:
--   worker               the id of the process
--   line                 JSON of the process after its first fields, without the opening brace
--   age: number          seconds since the process began
--   produces: flag       it added items since its last report
--   consumes: flag       it consumed items, or tried to
--   limit: number        number of lines to look at for old ones
--   changes...(field, num)
-- Returns {the text of the pause or '', 1 if the process had no line}
local DAYS, HOUR = 604800, 3600
local now = tonumber(redis.call('TIME')[1])
for i = changes_at, #ARGV, changes_width do
  -- fields: changes at i
  redis.call('HINCRBY', counts, field, num)
end
if produces then redis.call('HSET', counts, 'producer_seen', now) end
if consumes then redis.call('HSET', counts, 'consumer_seen', now) end
local head = string.format('{"seen":%d, "since":%d, ', now, now - age)
local is_new = redis.call('HSET', workers, worker, head .. line)
if limit > 0 then
  local lines = redis.call('HRANDFIELD', workers, limit, 'WITHVALUES')
  for i = 1, #lines, 2 do
    local seen = tonumber(string.match(lines[i + 1], '"seen":(%d+)') or '0')
    if seen < now - HOUR then redis.call('HDEL', workers, lines[i]) end
  end
end
redis.call('EXPIRE', counts, DAYS)
redis.call('EXPIRE', workers, DAYS)
return {redis.call('GET', paused) or '', is_new}

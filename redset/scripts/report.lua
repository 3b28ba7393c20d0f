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
local call = redis.call
local now = call('TIME')[1]
for i = changes_at, #ARGV, changes_width do
  -- fields: changes at i
  call('HINCRBY', counts, field, num)
end
local row, added = {produces and 'producer_seen' or 'consumer_seen', now}, 0
if produces and consumes then row[3], row[4] = 'consumer_seen', now end
if produces or consumes then added = call('HSET', counts, unpack(row)) end
local head = '{"seen":' .. now .. ', "since":' .. string.format('%d', now - age) .. ', '
local is_new = call('HSET', workers, worker, head .. line)
if limit > 0 then
  local lines = call('HRANDFIELD', workers, limit, 'WITHVALUES')
  for i = 1, #lines, 2 do
    local seen = tonumber(string.match(lines[i + 1], '"seen":(%d+)') or '0')
    if now - seen > HOUR then call('HDEL', workers, lines[i]) end
  end
end
-- A new key has new fields. A key's time begins again once an hour.
if limit > 0 or added > 0 then call('EXPIRE', counts, DAYS) end
if limit > 0 or is_new > 0 then call('EXPIRE', workers, DAYS) end
return {call('GET', paused) or '', is_new}

-- Empties the set in one step. Bounded steps then unlink the buckets of its memory.
-- KEYS: meta, none, seen, queue, counts, workers, name, keyed, tied, keyed_tied, items, leased, leases, calls, dead
-- ARGV:
--   new_epoch
--   keep: flag            keeps the memory
--   if_finished: flag     clears only a finished set; the arguments after it are for this
--   has_key: flag         true with key=
--   max_attempts: number
--   limit: number         limit of expired leases to return
--   first: number         number of them to read at first
-- Returns {number queued, whether old buckets are left}; for a set that is not finished
--   {number queued or held, 0, number of new dead letters}
-- include: check
-- include: counting
local fixed = {name, keyed, tied, keyed_tied, items, leased, leases, calls, dead}
if wrong_type(meta, 'hash') then return redis.error_reply(WRONG_TYPE) end
if if_finished then
  local items = has_key and items
-- include: due
-- include: leases
-- include: portions
-- include: expiring
  local now = milliseconds(call('TIME'))
  local back, died = expire(now, limit, first)
  if back == 0 then heal(now, limit) end
  local there = call('ZCARD', leased)
  -- All queues: an object with other options may have filled another one.
  for i = 1, 4 do
    if call('TYPE', fixed[i]).ok == 'zset' then there = there + call('ZCARD', fixed[i]) end
  end
  -- An item that died in this step is a dead letter that no caller has seen. An item of a record
  -- without a row is not finished, either.
  if there + back > 0 or call('EXISTS', leases) == 1 then
    return {math.max(there, 1), 0, died}
  end
end
local queued = 0
for i, key in ipairs(fixed) do
  if call('TYPE', key).ok == 'zset' and i <= 4 then queued = queued + call('ZCARD', key) end
end
call('UNLINK', none)
if keep then
  call('UNLINK', counts, workers, unpack(fixed))
  return {queued, 0}
end
call('HDEL', none, '')
local m = call('HMGET', meta, 'epoch', 'level', 'split', 'old')
local old = m[4] or ''
if m[1] and m[2] then
  local buckets = 2 ^ tonumber(m[2]) + tonumber(m[3])
  old = (old == '' and '' or old .. ' ') .. m[1] .. ':' .. string.format('%d', buckets)
end
if old == '' then
  call('UNLINK', meta, seen, counts, workers, unpack(fixed))
  return {queued, 0}
end
-- First, or the list of the old memory's buckets would be lost with it.
call('HSET', meta, 'layout', 1, 'epoch', new_epoch, 'old', old)
call('HDEL', meta, 'options', 'level', 'split', 'count', 'sequence', 'forgets')
call('UNLINK', seen, counts, workers, unpack(fixed))
return {queued, 1}

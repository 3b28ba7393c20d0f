-- Empties the set in one step. Bounded steps then unlink the buckets of its memory, and the indexes
-- of its groups.
-- KEYS: meta, none, seen, queue, counts, workers, name, keyed, tied, keyed_tied, grouped, grouped_tied, items, leased, leases, calls, dead, ready, resting, waiting, working, limits, shared, index
-- ARGV:
--   new_epoch
--   keep: flag            keeps the memory
--   if_finished: flag     clears only a finished set; the arguments after it are for this
--   has_key: flag         true with key=
--   max_attempts: number
--   limit: number         limit of expired leases to return
--   first: number         number of them to read at first
-- grouped:
--   @grouping
-- both:
-- Returns {number queued, whether old buckets or indexes are left}; for a set that is not finished
--   {number queued or held, 0, number of new dead letters}
-- include: check
-- include: counting
local queues = {name, keyed, tied, keyed_tied, grouped, grouped_tied}
local fixed = {leased, leases, calls, dead, limits, shared, unpack(queues)}
if wrong_type(meta, 'hash') then return redis.error_reply(WRONG_TYPE) end
if if_finished then
  local items = has_key and items
-- include: due
-- include: leases
-- grouped:
-- include: grouping
-- both:
-- include: portions
-- include: expiring
  local now = milliseconds(call('TIME'))
  local back, died = expire(now, limit, first)
  if back == 0 then heal(now, limit) end
  local there = call('ZCARD', leased)
  -- All queues: an object with other options may have filled another one.
  for _, key in ipairs(queues) do
    if call('TYPE', key).ok == 'zset' then there = there + call('ZCARD', key) end
  end
  -- An item that died in this step is a dead letter that no caller has seen. An item of a record
  -- without a row is not finished, either.
  if there + back > 0 or call('EXISTS', leases) == 1 then
    return {math.max(there, 1), 0, died}
  end
end
local queued = 0
for _, key in ipairs(queues) do
  if call('TYPE', key).ok == 'zset' then queued = queued + call('ZCARD', key) end
end
call('UNLINK', none)
-- include: clearing_groups
fixed[#fixed + 1] = items
if keep then
  call('UNLINK', counts, workers, unpack(fixed))
  return {queued, has_indexes and 1 or 0}
end
call('HDEL', none, '')
local m = call('HMGET', meta, 'epoch', 'level', 'split', 'old')
local old = m[4] or ''
if m[1] and m[2] then
  local buckets = 2 ^ tonumber(m[2]) + tonumber(m[3])
  old = (old == '' and '' or old .. ' ') .. m[1] .. ':' .. string.format('%d', buckets)
end
if old == '' and not has_indexes then
  call('UNLINK', meta, seen, counts, workers, unpack(fixed))
  return {queued, 0}
end
-- First, or the list of the old memory's buckets would be lost with it.
if old ~= '' then call('HSET', meta, 'layout', 1, 'epoch', new_epoch, 'old', old) end
call('HDEL', meta, 'options', 'level', 'split', 'count', 'sequence', 'forgets', 'turn', 'healed',
  'healing')
if old == '' then call('HDEL', meta, 'epoch') end
call('UNLINK', seen, counts, workers, unpack(fixed))
return {queued, 1}

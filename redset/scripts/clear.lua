-- Empties the set in one step, if asked only a finished one; the buckets of its memory are left to
-- bounded steps.
-- KEYS: meta, none, seen, queue, name, keyed, tied, keyed_tied, items, leased, leases, calls, dead
-- ARGV:
--   new_epoch
--   keep: flag            whether the memory is kept
--   if_finished: flag     whether only a finished set is cleared; for this the rest is there
--   has_key: flag         whether there is a key=
--   max_attempts: number
--   limit: number         how many expired leases to give back
--   first: number         how many of them to read at first
-- Returns {how many were queued, whether old buckets are left}; of a set that is not finished
--   {how many are queued or held back, 0, how many became dead letters now}
-- include: check
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
  -- As without: an object with other options may have filled another queue.
  for i = 1, 4 do
    if call('TYPE', fixed[i]).ok == 'zset' then there = there + call('ZCARD', fixed[i]) end
  end
  -- What has just died is a dead letter that nobody has seen. What a record alone tells of is not
  -- over, either.
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
  call('UNLINK', unpack(fixed))
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
  call('UNLINK', meta, seen, unpack(fixed))
  return {queued, 0}
end
-- First, or what the old memory's buckets are would be lost with it.
call('HSET', meta, 'layout', 1, 'epoch', new_epoch, 'old', old)
call('HDEL', meta, 'options', 'level', 'split', 'count', 'sequence', 'forgets')
call('UNLINK', seen, unpack(fixed))
return {queued, 1}

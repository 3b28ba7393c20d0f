-- Empties the set in one step, if asked only a finished one; the buckets of its memory are left to
-- bounded steps.
-- KEYS: meta, none, seen, then every other fixed key; if only a finished set is cleared, behind them
--   what `finished` has: queue, leased, leases, calls, dead, items (with a key=)
-- ARGV: new epoch, whether the memory is kept; if only a finished set is cleared, most attempts,
--   how many expired leases to give back, and to read at first
-- Returns {how many were queued, whether old buckets are left}; of a set that is not finished
--   {how many are queued or held back, 0, how many became dead letters now}
-- include: check
local meta, none, seen, epoch, keep = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2] == '1'
local fixed = {unpack(KEYS, 4, 12)}
if wrong_type(meta, 'hash') then return redis.error_reply(WRONG_TYPE) end
if ARGV[3] then
-- include: due
  local queue, leased, leases, calls, dead, items = unpack(KEYS, 13)
  local max = tonumber(ARGV[3])
-- include: leases
-- include: portions
-- include: expiring
  local now, limit = milliseconds(call('TIME')), tonumber(ARGV[4])
  local back, died = expire(now, limit, tonumber(ARGV[5]))
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
call('HSET', meta, 'layout', 1, 'epoch', epoch, 'old', old)
call('HDEL', meta, 'options', 'level', 'split', 'count', 'sequence', 'forgets')
call('UNLINK', seen, unpack(fixed))
return {queued, 1}

-- Empties the set in one step; the buckets of its memory are left to bounded steps.
-- KEYS: meta, none, seen, then every other fixed key
-- ARGV: new epoch, whether the memory is kept
-- Returns {how many were queued, whether old buckets are left}
-- include: check
local meta, none, seen, epoch, keep = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2] == '1'
if wrong_type(meta, 'hash') then return redis.error_reply(WRONG_TYPE) end
local queued = 0
for i = 4, #KEYS do
  if call('TYPE', KEYS[i]).ok == 'zset' and i <= 7 then queued = queued + call('ZCARD', KEYS[i]) end
end
call('UNLINK', none)
if keep then
  call('UNLINK', unpack(KEYS, 4))
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
  call('UNLINK', meta, seen, unpack(KEYS, 4))
  return {queued, 0}
end
-- First, or what the old memory's buckets are would be lost with it.
call('HSET', meta, 'layout', 1, 'epoch', epoch, 'old', old)
call('HDEL', meta, 'options', 'level', 'split', 'count', 'sequence', 'forgets')
call('UNLINK', seen, unpack(KEYS, 4))
return {queued, 1}

-- Forgets items, so that they may be added again.
-- KEYS: meta, none, seen
-- ARGV: remember, epoch, then what is remembered of each
-- Returns how many were known, or {'EPOCH', the set's}
-- include: check
-- include: due
-- include: buckets
-- include: forgetting
local meta, none, seen, remember, epoch = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2]
if wrong_type(meta, 'hash') or (remember == 'limited' and wrong_type(seen, 'zset')) then
  return redis.error_reply(WRONG_TYPE)
end
local other = other_epoch(meta, epoch)
if other then return other end
if #ARGV > 2 then try_to_forget(remember, meta, none) end
return forget(remember, meta, seen, epoch, {unpack(ARGV, 3)})

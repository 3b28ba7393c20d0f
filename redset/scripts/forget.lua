-- Forgets items, so that they may be added again.
-- KEYS: meta, none, seen
-- ARGV:
--   remember, epoch
--   tokens...        one per item, as the memory stores it
-- Returns the number that was known, or {'EPOCH', the set's}
-- include: check
-- include: due
-- include: buckets
-- include: forgetting
if wrong_type(meta, 'hash') or (remember == 'limited' and wrong_type(seen, 'zset')) then
  return redis.error_reply(WRONG_TYPE)
end
local other = other_epoch(meta, epoch)
if other then return other end
if #ARGV >= tokens_at then try_to_forget(remember, meta, none) end
return forget(remember, meta, seen, epoch, {unpack(ARGV, tokens_at)})

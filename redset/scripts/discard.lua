-- Removes items by identity, and forgets them where asked.
-- KEYS: queue, meta, seen, items
-- ARGV: keyed, remember ('' where nothing is to be forgotten), epoch, number of members, members,
--   then for each what is remembered of it
-- Returns how many were queued, or {'EPOCH', the set's}
-- include: check
-- include: buckets
-- include: forgetting
local queue, meta, seen, items = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keyed, remember, epoch, n = ARGV[1] == '1', ARGV[2], ARGV[3], tonumber(ARGV[4])
if wrong_type(queue, 'zset') or (keyed and wrong_type(items, 'hash'))
  or (remember ~= '' and wrong_type(meta, 'hash'))
  or (remember == 'limited' and wrong_type(seen, 'zset')) then
  return redis.error_reply(WRONG_TYPE)
end
local members, tokens = {}, {}
for i = 1, n do members[i] = ARGV[4 + i] tokens[i] = ARGV[4 + n + i] end
if remember ~= '' then
  local other = other_epoch(meta, epoch)
  if other then return other end
end
local gone = call('ZREM', queue, unpack(members))
if keyed then call('HDEL', items, unpack(members)) end
if remember ~= '' then forget(remember, meta, seen, epoch, tokens) end
return gone

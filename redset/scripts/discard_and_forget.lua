-- Removes items by identity, also leased ones, and forgets them.
-- ungrouped:
-- KEYS: queue, none, leased, leases; with options meta, seen; with key= items
-- grouped:
-- KEYS: queue, none, leased, leases, meta, seen, items, ready, resting, waiting, working, limits, shared, index
-- both:
-- ARGV:
--   remember
--   epoch
-- grouped:
--   @grouping
-- both:
--   num: number  of members
--   members...   then for each its token in the memory
-- Returns the number that was queued or leased, or {'EPOCH', the set's}
-- include: check
-- include: due
-- include: buckets
-- include: forgetting
if wrong_type(queue, 'zset') or wrong_type(leased, 'zset') or wrong_type(leases, 'hash')
  or (items and wrong_type(items, 'hash')) or wrong_type(meta, 'hash')
  or (remember == 'limited' and wrong_type(seen, 'zset')) then
  return redis.error_reply(WRONG_TYPE)
end
call('ZREM', none, '')
call('HDEL', none, '')
local members, tokens = {}, {}
for i = 1, num do
  members[i] = ARGV[members_at + i - 1]
  tokens[i] = ARGV[members_at + num + i - 1]
end
local other = other_epoch(meta, epoch)
if other then return other end
if num > 0 then try_to_forget(remember, meta, none) end
-- include: leases
-- grouped:
-- include: grouping
-- both:
-- include: discarding
local gone = discard(members)
forget(remember, meta, seen, epoch, tokens)
return gone

-- Removes items by identity, also leased ones, and may forget them.
-- KEYS: queue, none, leased, leases; with options meta, seen; with key= items
-- ARGV:
--   keyed: flag
--   remember     '' to forget nothing
--   epoch
--   num: number  of members
--   members...   then for each its token in the memory
-- Returns the number that was queued or leased, or {'EPOCH', the set's}
-- include: check
-- The short way, a third of the step: nothing is leased, and nothing is to be forgotten.
if remember == '' and num > 0 and call('HLEN', leases) == 0 then
  call('ZCARD', leased)
  if keyed then
    call('HLEN', items)
    call('HDEL', none, '')
  end
  local gone = call('ZREM', queue, unpack(ARGV, members_at))
  if keyed then call('HDEL', items, unpack(ARGV, members_at)) end
  return gone
end
-- include: due
-- include: buckets
-- include: forgetting
if wrong_type(queue, 'zset') or wrong_type(leased, 'zset') or wrong_type(leases, 'hash')
  or (keyed and wrong_type(items, 'hash')) or (remember ~= '' and wrong_type(meta, 'hash'))
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
if remember ~= '' then
  local other = other_epoch(meta, epoch)
  if other then return other end
  if num > 0 then try_to_forget(remember, meta, none) end
end
-- include: leases
-- include: discarding
local gone = discard(members)
if remember ~= '' then forget(remember, meta, seen, epoch, tokens) end
return gone

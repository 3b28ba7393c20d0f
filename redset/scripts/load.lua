-- Puts items of an exported set back, if they are not there.
-- KEYS: queue, then with second keys: none, meta, leases, items (with a key=)
-- ARGV: what is restored, the number of this step, then score, member, attempts, last error,
--   payload, ...
-- Returns how many items this restore queued, without second keys this step; -1 if the set was
--   cleared meanwhile
-- include: check
-- include: restoring
local queue, none, meta, leases, items = unpack(KEYS)
-- include: leases
local queued = 0
if meta then
  local id, done, before = progress(meta)
  if id ~= ARGV[1] then return -1 end
  queued = before
  if done >= tonumber(ARGV[2]) then return queued end
end
for i = 3, #ARGV, 5 do
  local score, member, attempts, last = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if not call('ZSCORE', queue, member) then
    -- The place last: a step that is refused in its middle leaves no item without its payload.
    if items then call('HSET', items, member, ARGV[i + 4]) end
    if attempts ~= '0' and leases then
      call('HSET', leases, member, lease_value(QUEUED, attempts, score, '', last))
    end
    call('ZADD', queue, score, member)
    queued = queued + 1
  end
end
if meta then note(meta, ARGV[1], ARGV[2], queued) end
return queued

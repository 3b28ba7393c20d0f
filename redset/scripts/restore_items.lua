-- Restores items of an exported set that are not queued.
-- KEYS: queue; with second keys none, meta, leases; with key= items
-- ARGV:
--   id              of the restored lines
--   number: number  of this step
--   rows...(score, member, attempts, last, payload)
-- Returns the number of items that this restore queued, or without second keys this step; -1 if
--   the set was cleared since
-- include: check
-- include: restoring
-- include: leases
local queued = 0
if meta then
  local restored, done, before = progress(meta)
  if restored ~= id then return -1 end
  queued = before
  if done >= number then return queued end
end
for i = rows_at, #ARGV, rows_width do
  -- fields: rows at i
  if not call('ZSCORE', queue, member) then
    -- The score last: a step that is refused midway leaves no item without its payload.
    if items then call('HSET', items, member, payload) end
    if attempts ~= '0' and leases then
      call('HSET', leases, member, lease_value(QUEUED, attempts, score, '', last))
    end
    call('ZADD', queue, score, member)
    queued = queued + 1
  end
end
if meta then note(meta, id, number, queued) end
return queued

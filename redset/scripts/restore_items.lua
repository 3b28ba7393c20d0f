-- Restores items of an exported set that are not queued.
-- ungrouped:
-- KEYS: queue; with second keys none, meta, leases; with key= items
-- grouped:
-- KEYS: queue, none, meta, leases, leased, items, ready, resting, waiting, working, limits, shared, index
-- both:
-- ARGV:
-- grouped:
--   @grouping
-- both:
--   id              of the restored lines
--   number: number  of this step
--   rows...(score, member, attempts, last, payload)
-- Returns the number of items that this restore queued, or without second keys this step; -1 if
--   the set was cleared since
-- include: check
-- include: restoring
-- grouped:
-- include: due
-- both:
-- include: leases
-- grouped:
-- include: grouping
-- both:
local queued = 0
if meta then
  local restored, done, before = progress(meta)
  if restored ~= id then return -1 end
  queued = before
  if done >= number then return queued end
end
-- grouped:
local seen, payloads, records, places, by, order = {}, {}, {}, {}, {}, {}
-- both:
for i = rows_at, #ARGV, rows_width do
  -- fields: rows at i
-- grouped:
  -- A consumer may hold what an earlier step restored: an exported item may come twice.
  if not (seen[member] or call('ZSCORE', queue, member) or call('ZSCORE', leased, member)) then
    seen[member] = true
    local last_payload, last_place, length = #payloads, #places, 1 + byte(payload)
    payloads[last_payload + 1], payloads[last_payload + 2] = member, payload
    if attempts ~= '0' then
      records[#records + 1] = member
      records[#records + 1] = lease_value(QUEUED, attempts, score, '', last, sub(payload, 1, length))
    end
    places[last_place + 1], places[last_place + 2] = score, member
    sort_in(by, order, sub(payload, 2, length), score, member)
    queued = queued + 1
  end
-- ungrouped:
  if not call('ZSCORE', queue, member) then
    -- The score last: a step that is refused midway leaves no item without its payload.
    if items then call('HSET', items, member, payload) end
    if attempts ~= '0' and leases then
      call('HSET', leases, member, lease_value(QUEUED, attempts, score, '', last))
    end
    call('ZADD', queue, score, member)
    queued = queued + 1
  end
-- both:
end
-- grouped:
bulk('HSET', items, payloads)
bulk('HSET', leases, records)
for _, group in ipairs(order) do bulk('ZADD', index_of .. group, by[group]) end
line_up(order, nil, true)
bulk('ZADD', queue, places)
-- both:
if meta then note(meta, id, number, queued) end
return queued

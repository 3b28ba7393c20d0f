-- Returns whether nothing is queued, scheduled or held.
-- ungrouped:
-- KEYS: queue, none, leased, leases, calls, dead, counts; with key= items
-- grouped:
-- KEYS: queue, none, leased, leases, calls, dead, counts, items, meta, ready, resting, waiting, working, limits, shared, index
-- both:
-- ARGV:
--   max_attempts: number
--   limit: number         limit of expired leases to return
--   first: number         number of them to read at first
--   looks: flag           only reads
-- grouped:
--   @grouping
-- both:
-- Returns {whether it is finished, number of returned leases, number of these that became dead
--   letters}; if it only reads, whether it would be finished, and 0, 0
-- include: check
-- include: counting
-- include: due
-- include: leases
-- grouped:
-- include: grouping
-- both:
-- include: portions
-- include: expiring
if items then call('HLEN', items) end
local now = milliseconds(call('TIME'))
if looks then
-- include: looking
  local over, _, queued, _, _, gone = look_at_expired(now, first, 0)
  local left = call('ZCARD', leased) - over + call('ZCARD', queue) + queued
  local records = left == 0 and call('HLEN', leases) or 0
  if records > 0 and records <= limit then
    -- Records of queued items are dropped: no item is queued.
    for _, value in ipairs(call('HVALS', leases)) do
      if owner_of(value) == QUEUED then records = records - 1 end
    end
  end
  return {left == 0 and records <= gone and 1 or 0, 0, 0}
end
local back, died = expire(now, limit, first)
if back == 0 then heal(now, limit) end
-- The item of a record without a row returns, or the record is dropped, by this or the next calls.
local over = call('EXISTS', leases) == 0 and call('ZCARD', queue) == 0 and call('ZCARD', leased) == 0
return {over and 1 or 0, back, died}

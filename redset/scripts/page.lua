-- Returns the page of members after the last one seen.
-- KEYS: queue; with key= none, items
-- ARGV:
--   num: number                how many
--   first: number              how many to read at first
--   lowest, highest: optional  scores
--   last_score: optional       of the last one seen
--   last_member
-- Returns {members, scores, payloads, whether there may be more of so many}
-- include: portions
-- include: paging
local payloads_of
if items then
  function payloads_of(names) return redis.call('HMGET', items, unpack(names)) end
end
local members, scores, more, payloads =
  page(queue, num, first, last_score, last_member, lowest, highest, payloads_of)
return {members, scores, payloads, more and 1 or 0}

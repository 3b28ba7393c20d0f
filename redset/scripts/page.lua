-- Returns a page of members after the last one seen.
-- KEYS: queue; with key= none, items
-- ARGV:
--   num: number                limit of members
--   first: number              number to read at first
--   lowest, highest: optional  scores
--   last_score: optional       of the last member seen
--   last_member
-- Returns {members, scores, payloads, whether there may be more}
-- include: portions
-- include: paging
local payloads_of
if items then
  function payloads_of(names) return redis.call('HMGET', items, unpack(names)) end
end
local members, scores, more, payloads =
  page(queue, num, first, last_score, last_member, lowest, highest, payloads_of)
return {members, scores, payloads, more and 1 or 0}

-- Returns a page of members after the last one seen.
-- KEYS: queue; with key= none, items
-- ARGV:
--   num: number                limit of members
--   first: number              number to read at first
--   lowest, highest: optional  scores
--   last_score: optional       of the last member seen
--   last_member
--   scored: flag               returns all scores, else only the last one
-- Returns {members, scores, payloads, whether there may be more}
-- include: portions
-- include: paging
local payloads_of
if items then
  function payloads_of(names) return redis.call('HMGET', items, unpack(names)) end
end
local members, scores, more, payloads
if scored then
  members, scores, more, payloads =
    page(queue, num, first, last_score, last_member, lowest, highest, payloads_of)
else
  -- The scores cost the server more than the members.
  local from, to = ranks_of(queue, num, last_score, last_member, lowest, highest)
  local n
  members, payloads = {}, {}
  n, more = in_portions(to - from, first, function(at, want)
    local names = redis.call('ZRANGE', queue, from + at, from + at + want - 1)
    local some = payloads_of and #names > 0 and payloads_of(names) or nil
    if some then payloads = append(payloads, some) end
    members = append(members, names)
    return names, 1, some
  end)
  cut(members, n)
  cut(payloads, n)
  scores = {n > 0 and redis.call('ZSCORE', queue, members[n]) or nil}
end
return {members, scores, payloads, more and 1 or 0}

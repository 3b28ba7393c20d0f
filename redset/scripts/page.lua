-- Returns the page of members after the last one seen.
-- KEYS: queue, none, items (with a key=)
-- ARGV: how many, how many to read at first, lowest and highest score ('' if any), and behind a
--   first page: the last score and member seen
-- Returns {members, scores, payloads, whether there may be more of so many}
-- include: portions
-- include: paging
local num, first = tonumber(ARGV[1]), tonumber(ARGV[2])
local payloads_of
if KEYS[3] then
  function payloads_of(names) return redis.call('HMGET', KEYS[3], unpack(names)) end
end
local members, scores, more, payloads =
  page(KEYS[1], num, first, ARGV[5], ARGV[6], ARGV[3], ARGV[4], payloads_of)
return {members, scores, payloads, more and 1 or 0}

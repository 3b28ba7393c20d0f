-- Returns the page of members behind the last one seen.
-- KEYS: queue, none, items (with a key=)
-- ARGV: how many, lowest and highest score ('' where any), and behind a first page: the last score
--   and member seen
-- Returns {members, scores, payloads}
-- include: paging
local members, scores = page(KEYS[1], tonumber(ARGV[1]), ARGV[4], ARGV[5], ARGV[2], ARGV[3])
local payloads = {}
if KEYS[3] and #members > 0 then payloads = redis.call('HMGET', KEYS[3], unpack(members)) end
return {members, scores, payloads}

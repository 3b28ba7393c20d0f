-- Returns the page of what is held back, behind the last one seen, in order of expiry.
-- KEYS: leased, leases, items (with a key=)
-- ARGV: how many, and behind a first page: the last expiry and member seen
-- Returns {members, expiries in ms, payloads, attempts, scores}
-- include: paging
local members, expiries = page(KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3])
local payloads, attempts, scores = {}, {}, {}
if #members > 0 then
  if KEYS[3] then payloads = redis.call('HMGET', KEYS[3], unpack(members)) end
  for i, value in ipairs(redis.call('HMGET', KEYS[2], unpack(members))) do
    attempts[i], scores[i] = string.match(value or '', '^(%d+) (%S+)', 18)
    attempts[i], scores[i] = attempts[i] or '0', scores[i] or '0'
  end
end
return {members, expiries, payloads, attempts, scores}

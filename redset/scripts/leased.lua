-- Returns the page of what is held back, behind the last one seen, in order of expiry.
-- KEYS: leased, none, leases, items (with a key=)
-- ARGV: how many, and behind a first page: the last expiry and member seen
-- Returns {members, expiries in ms, payloads, attempts, scores, last errors}
-- include: check
-- include: due
local leased, none, leases, items = unpack(KEYS)
-- include: leases
-- include: paging
local members, expiries = page(leased, tonumber(ARGV[1]), ARGV[2], ARGV[3])
local payloads, attempts, scores, errors = {}, {}, {}, {}
if items then payloads = lookup('HMGET', items, members) end
for i, value in ipairs(values_of(members)) do
  attempts[i], scores[i], errors[i] = '0', '0', ''
  if value then
    local _
    attempts[i], scores[i], _, errors[i] = parse(value)
    attempts[i] = string.match(attempts[i], '^%d+')
  end
end
return {members, expiries, payloads, attempts, scores, errors}

-- Returns the page of what is held back, after the last one seen, in order of expiry.
-- KEYS: leased, none, leases, items (with a key=)
-- ARGV: how many, how many to read at first, and after the first page: the last expiry and member seen
-- Returns {members, expiries in ms, payloads, whether there may be more of so many, attempts, scores,
--   last errors}
-- include: check
-- include: due
local leased, none, leases, items = unpack(KEYS)
-- include: leases
-- include: portions
-- include: paging
local num, first, payloads_of = tonumber(ARGV[1]), tonumber(ARGV[2]), nil
if items then
  function payloads_of(names) return lookup('HMGET', items, names) end
end
local members, expiries, more, payloads =
  page(leased, num, first, ARGV[3], ARGV[4], nil, nil, payloads_of)
local attempts, scores, errors = {}, {}, {}
for i, value in ipairs(values_of(members)) do
  attempts[i], scores[i], errors[i] = '0', '0', ''
  if value then
    local _
    attempts[i], scores[i], _, errors[i] = parse(value)
    attempts[i] = string.match(attempts[i], '^%d+')
  end
end
return {members, expiries, payloads, more and 1 or 0, attempts, scores, errors}

-- Returns a page of leased and delayed items, after the last one seen, in order of expiry.
-- KEYS: leased, none, leases; with key= items
-- ARGV:
--   num: number            limit of items
--   first: number          number to read at first
--   last_expiry: optional  of the last item seen
--   last_member
-- Returns {members, expiries in ms, payloads, whether there may be more, attempts, scores, last
--   errors, first characters of their owners' tokens ('' of a delayed item)}
-- include: check
-- include: due
-- include: leases
-- include: portions
-- include: paging
local payloads_of
if items then
  function payloads_of(names) return lookup('HMGET', items, names) end
end
local members, expiries, more, payloads =
  page(leased, num, first, last_expiry, last_member, nil, nil, payloads_of)
local attempts, scores, errors, owners = {}, {}, {}, {}
for i, value in ipairs(values_of(members)) do
  attempts[i], scores[i], errors[i], owners[i] = '0', '0', '', ''
  if value then
    local _
    attempts[i], scores[i], _, errors[i] = parse(value)
    attempts[i] = string.format('%d', (tried(attempts[i])))
    if owner_of(value) ~= DELAYED then owners[i] = string.sub(value, 1, 6) end
  end
end
return {members, expiries, payloads, more and 1 or 0, attempts, scores, errors, owners}

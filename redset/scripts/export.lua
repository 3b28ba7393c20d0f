-- Returns a page of a set, as if nothing were leased, after the last member seen.
-- KEYS: key, none, queue, leases, items
--   The key is the queue, or `leased`; then come second keys, and with key= items.
-- ARGV:
--   num: number           limit of members
--   first: number         number to read at first
--   last_score: optional  or expiry, of the last member seen
--   last_member
-- Returns {the end of the page: score or expiry, member; number of members; whether there may be
--   more; then score, member, attempts, last error, payload ('' without a key=), ...}
-- include: portions
-- include: paging
local call = redis.call
-- include: leases
local payloads_of
if items then
  -- An add during the lease replaces the leased item.
  function payloads_of(names)
    local found = call('HMGET', items, unpack(names))
    for i, value in ipairs(queue and key ~= queue and values_of(names) or {}) do
      local _, again
      if value then _, _, again = parse(value) end
      if again and again ~= '' then found[i] = call('HGET', items, names[i] .. '+') or found[i] end
    end
    return found
  end
end
local members, scores, more, payloads =
  page(key, num, first, last_score, last_member, nil, nil, payloads_of)
local n = #members
local reply = {scores[n] or '', members[n] or '', n, more and 1 or 0}
if n == 0 then return reply end
local held = queue and key ~= queue
local values = queue and values_of(members) or {}
local queued = held and call('ZMSCORE', queue, unpack(members))
for i = 1, n do
  local member, value, score = members[i], values[i], scores[i]
  local attempts, last, payload = '0', '', payloads[i]
  if value then
    local before, again
    attempts, before, again, last = parse(value)
    attempts = string.format('%d', (tried(attempts)))
    if held then score = before end
    -- An add during the lease replaces it.
    if held and again ~= '' then score = going_on(again, before) end
  end
  -- A member that is queued as well comes with the queue. A member without a payload is not an
  -- item.
  if not (queued and queued[i]) and (value or not held) and not (items and not payload) then
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3] = score, member, attempts
    reply[at + 4], reply[at + 5] = last, payload or ''
  end
end
return reply

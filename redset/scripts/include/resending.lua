-- Included by steps that lease, a piece of them: a call that was sent again gets its leases, and those
-- that it may not have any more return.
local mine, found = {}, call('ZRANGEBYSCORE', leased, held, held)
for i, value in ipairs(values_of(found)) do
  if value and owner_of(value) == token then
    local attempts, score = parse(value)
    mine[#mine + 1] = {tonumber(score), i, found[i], score, attempts, value}
  end
end
table.sort(mine, function(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end)
local most = tonumber(held) > now and num or 0
-- For the whole time of this request: the caller counts from here.
local until_now = string.format('%.0f', math.max(tonumber(held), now + ttl))
local bound, leases_of, attempted, payloads = 0, {}, {}, items and {}
local rest, theirs, rows, bytes = {}, {}, {}, 0
for place, lease in ipairs(mine) do
  if place <= most then
    local attempts, cohort, suspect = tried(lease[5])
    if suspect then bound = bound > 0 and math.min(bound, cohort) or cohort end
    leases_of[2 * place - 1], leases_of[2 * place] = lease[3], lease[4]
    if attempts > 0 then
      attempted[#attempted + 1], attempted[#attempted + 2] = place, attempts
    end
    rows[#rows + 1], rows[#rows + 2] = until_now, lease[3]
    bytes = bytes + #lease[3]
    if payloads then
-- ungrouped:
      payloads[place] = call('HGET', items, lease[3]) or ''
-- grouped:
      payloads[place] = call('HGET', items, lease[3]) or '\0'
-- both:
      bytes = bytes + #payloads[place]
    end
  else
    rest[#rest + 1], theirs[#theirs + 1] = lease[3], lease[6]
  end
end
if #rest > 0 then
  -- No worker has received these: they return, and count no attempt.
-- include: finishing
  finish('release', rest, theirs, now, {0, '', '', ''})
end
if #leases_of > 0 then
  bulk('ZADD', leased, rows)
  call('ZADD', calls, until_now, token)
  local more = #mine < num and bytes >= BYTES and 1 or 0
  return {until_now, more, 0, bound, 0, leases_of, attempted, payloads}
end

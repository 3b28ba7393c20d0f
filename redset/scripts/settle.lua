-- Ends, or prolongs, leases that are still their holders', and adds items in the same step.
-- KEYS: queue, leased, leases, calls, dead, meta, seen, items (with a key=), name
-- ARGV: most attempts, whether there is a key=, number of groups; for each group: what (ack, fail,
--   bury, release, renew; check does nothing), token, delay or time in ms, new score or '', the
--   error, new payload or '', number of members, members; then, where items are to be added if any
--   of the leases is still its holder's, what `adding` says of heads and entries
-- Returns {how many of each group were the holder's, what `adding` says or ''}; where nothing was
--   written because of that, only what it says
-- include: check
-- include: due
local queue, leased, leases, calls, dead, meta, seen, items, name = unpack(KEYS)
local max, keyed = tonumber(ARGV[1]), ARGV[2] == '1'
if not keyed then items = nil end
-- include: leases
-- include: buckets
-- include: drop
-- include: adding
if wrong_type(leases, 'hash') then return redis.error_reply(WRONG_TYPE) end
local groups, at, any, named = {}, 4, false, {}
for i = 1, tonumber(ARGV[3]) do
  local group = {how = ARGV[at], token = ARGV[at + 1], members = {}, settled = {
    tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4], ARGV[at + 5],
  }}
  local n = tonumber(ARGV[at + 6])
  for k = 1, n do
    local member = ARGV[at + 6 + k]
    -- Once: a second time it would go by what the first has ended.
    if not named[group.token .. member] then
      named[group.token .. member] = true
      group.members[#group.members + 1] = member
    end
  end
  at = at + 7 + n
  groups[i] = group
end
-- Leaves of each group what is still its holder's, with the values.
local function look()
  for _, group in ipairs(groups) do
    local mine, values = {}, {}
    for k, value in ipairs(values_of(group.members)) do
      if value and owner_of(value) == group.token then
        mine[#mine + 1] = group.members[k]
        values[#values + 1] = value
      end
    end
    if #mine > 0 then any = true end
    group.members, group.values = mine, values
  end
end
look()
call('ZCARD', queue)
call('ZCARD', leased)
call('ZCARD', calls)
if keyed then call('HLEN', items) end
local outcome = ''
if any and at <= #ARGV then
  -- First, so that a full server refuses all of it.
  outcome = add(ARGV, at - 1)
  if outcome.err or type(outcome[1]) ~= 'number' then return outcome end
  look()
end
local counts, now = {}, milliseconds(call('TIME'))
for i, group in ipairs(groups) do
  local how, members = group.how, group.members
  if how ~= 'check' then call('ZREM', calls, group.token) end
  if how == 'renew' then
    local expiry, list = string.format('%d', now + group.settled[1]), {}
    for k = 1, #members do
      list[2 * k - 1] = expiry
      list[2 * k] = members[k]
    end
    bulk('ZADD', leased, list)
  elseif how ~= 'check' and #members > 0 then
    finish(how, members, group.values, now, group.settled)
  end
  counts[i] = #members
end
return {counts, outcome}

-- Ends, or prolongs, leases that are still their holders', and adds items in the same step.
-- KEYS: queue, none, leased, leases, calls, dead, meta, seen, items (with a key=), name
-- ARGV: most attempts, whether there is a key=, number of groups; for each group: what (ack, fail,
--   bury, release, renew; check does nothing), token, delay or time in ms, new score or '', the
--   error, new payload or '', number of members, members; then, where items are to be added if any
--   of the leases is still its holder's, what `adding` says of heads and entries
-- Returns {how many of each group were the holder's, what `adding` says or ''}; where nothing was
--   written because of that, only what it says
-- include: check
-- include: due
local queue, none, leased, leases, calls, dead, meta, seen, items, name = unpack(KEYS)
local max, keyed = tonumber(ARGV[1]), ARGV[2] == '1'
if not keyed then items = nil end
-- include: leases
local groups, at, any, named, buries = {}, 4, false, {}, false
for i = 1, tonumber(ARGV[3]) do
  local group = {how = ARGV[at], token = ARGV[at + 1], members = {}, settled = {
    tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4], ARGV[at + 5],
  }}
  local n, members = tonumber(ARGV[at + 6]), group.members
  local seen_before = named[group.token] or {}
  named[group.token] = seen_before
  for k = 1, n do
    local member = ARGV[at + 6 + k]
    -- Once: a second time it would go by what the first has ended.
    if not seen_before[member] then
      seen_before[member] = true
      members[#members + 1] = member
    end
  end
  at = at + 7 + n
  groups[i] = group
  buries = buries or group.how == 'fail' or group.how == 'bury'
end
-- Leaves of each group what is still its holder's, with the values; none of it was added
-- meanwhile if it is plain.
local function look()
  for _, group in ipairs(groups) do
    local members, found = group.members, values_of(group.members)
    local token, plain = group.token, group.token .. '0'
    local mine, values, n = {}, {}, 0
    group.plain = true
    for k = 1, #members do
      local value = found[k]
      local whose = value and string.sub(value, 1, 17)
      if whose and (whose == plain or owner_of(value) == token) then
        n = n + 1
        mine[n], values[n] = members[k], value
        if whose ~= plain then group.plain = false end
      end
    end
    if n > 0 then any = true end
    group.members, group.values = mine, values
  end
end
look()
call('ZCARD', queue)
call('ZCARD', leased)
call('ZCARD', calls)
if buries then call('XLEN', dead) end
if keyed then call('HLEN', items) end
local outcome = ''
-- Removals are tried where nothing is there: a user who may not perform one is refused before the
-- first write. What adds comes before that, so that a full server refuses all of it.
local function try_removals()
  call('ZREM', none, '')
  call('HDEL', none, '')
end
if any and at <= #ARGV then
  -- Here, since to make so many functions takes time.
-- include: buckets
-- include: drop
-- include: adding
  outcome = add(ARGV, at - 1, try_removals)
  if outcome.err or type(outcome[1]) ~= 'number' then return outcome end
  look()
else
  try_removals()
end
local counts, now = {}, nil
local function time()
  now = now or milliseconds(call('TIME'))
  return now
end
for i, group in ipairs(groups) do
  local how, members = group.how, group.members
  if how == 'renew' then
    local expiry, list = string.format('%d', time() + group.settled[1]), {}
    for k = 1, #members do
      list[2 * k - 1] = expiry
      list[2 * k] = members[k]
    end
    bulk('ZADD', leased, list)
  elseif how == 'ack' and group.plain then
    -- What `finish` would do, without it.
    bulk('ZREM', leased, members)
    bulk('HDEL', leases, members)
    if keyed then bulk('HDEL', items, members) end
  elseif how ~= 'check' and #members > 0 then
-- include: finishing
    finish(how, members, group.values, time(), group.settled)
  end
  counts[i] = #members
  if how ~= 'check' then call('ZREM', calls, group.token) end
end
return {counts, outcome}

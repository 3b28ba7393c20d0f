-- Ends or extends leases that their holders still have, and adds items in the same step.
-- ungrouped:
-- KEYS: queue, none, leased, leases, calls, dead, counts, meta, seen, items, name
-- grouped:
-- KEYS: queue, none, leased, leases, calls, dead, counts, meta, seen, items, name, ready, resting, waiting, working, limits, shared, index
-- both:
-- ARGV:
--   max_attempts: number
--   keyed: flag
-- grouped:
--   @grouping
-- both:
--   num_groups: number
--   groups...(how, token, time, score, error, payload, num)  num_groups groups, each followed by its
--     members. How: ack, fail, bury, release, renew; check does nothing. The time is a delay or a ttl
--     in ms. The score and the payload are new ones, or ''. After the groups may come the arguments of
--     `adding` and entries. They are added if any of the leases is still held.
-- Returns {number still held of each group, the result of `adding` or ''}; if nothing was written
--   because of `adding`, only its reason. Of a single group that adds nothing it may return the number
-- include: check
-- include: counting
-- ungrouped:
-- include: settling
-- both:
-- include: due
if not keyed then items = nil end
-- include: leases
-- grouped:
-- include: grouping
-- both:
local groups, at, any, named, buries = {}, groups_at, false, {}, false
for i = 1, num_groups do
  -- fields: groups at at
  local members = {}
  local group = {how = how, token = token, members = members}
-- ungrouped:
  group.settled = {tonumber(time), score, error, payload}
-- grouped:
  -- A time with a mark is also that of the groups' rest.
  local delay, rests = string.match(time, '^(%d+)(!?)')
  group.settled = {tonumber(delay), score, error, payload, rests == '!' and tonumber(delay) or nil}
-- both:
  local seen_before = named[token] or {}
  named[token] = seen_before
  at = at + groups_width
  local after = at + tonumber(num)
  for k = at, after - 1 do
    local member = ARGV[k]
    -- Once: the first one ends the lease that a second one would look at.
    if not seen_before[member] then
      seen_before[member] = true
      members[#members + 1] = member
    end
  end
  at = after
  groups[i] = group
  buries = buries or how == 'fail' or how == 'bury'
end
-- Keeps of each group the leases that are still held, with their values. A plain group has no item
-- that was added while it was leased.
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
-- Removals are tried on an empty key: a user who may not perform one is refused before the first
-- write. Adds come before that, so that a full server refuses the whole step.
local function try_removals()
  call('ZREM', none, '')
  call('HDEL', none, '')
end
if any and at <= #ARGV then
  -- Here, since making so many functions takes time.
  -- fields: @adding at at
-- include: buckets
-- include: drop
-- include: adding
  outcome = add(ARGV, at + adding_width, try_removals)
  if outcome.err or type(outcome[1]) ~= 'number' then return outcome end
  look()
else
  try_removals()
end
local still_held, now = {}, nil
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
    -- The same as `finish`, without its functions.
-- grouped:
    local slots = {}
    for k = 1, #members do
      local value = group.values[k]
      slots[2 * k - 1], slots[2 * k] = sub(value, 19, 18 + byte(value, 18)), members[k]
    end
-- both:
    bulk('ZREM', leased, members)
-- grouped:
    local ended = free(slots)
-- both:
    bulk('HDEL', leases, members)
    if keyed then bulk('HDEL', items, members) end
-- grouped:
    line_up(ended)
-- both:
  elseif how ~= 'check' and #members > 0 then
-- include: finishing
    finish(how, members, group.values, time(), group.settled)
  end
  still_held[i] = #members
  if how ~= 'check' then call('ZREM', calls, group.token) end
end
return {still_held, outcome}

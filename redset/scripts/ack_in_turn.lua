-- Acknowledges leases of one token of a set with groups: the short way of `settle`, with fewer
-- functions.
-- KEYS: none, leased, leases, calls, items, meta, ready, resting, waiting, working, limits, shared, index
-- ARGV:
--   @grouping
--   token
--   members...
-- Returns the number of leases, or -1 if nothing was written: one of them is lost, or its item was
--   added while it was leased
local call, sub, byte = redis.call, string.sub, string.byte
local num, plain = #ARGV - members_at + 1, token .. '0'
-- Many fields of a packed hash would each be searched from the start (see values_reader).
local PACKED, records = {listpack = true, ziplist = true}, nil
if num >= 50 and PACKED[redis.pcall('OBJECT', 'ENCODING', leases)] then
  local all, by = call('HGETALL', leases), {}
  for i = 1, #all, 2 do by[all[i]] = all[i + 1] end
  records = {}
  for i = 1, num do records[i] = by[ARGV[members_at + i - 1]] or false end
else
  records = call('HMGET', leases, unpack(ARGV, members_at))
end
-- The groups, and the slots of each that end.
local groups, ended = {}, {}
for i = 1, num do
  local value, member = records[i], ARGV[members_at + i - 1]
  if not value or sub(value, 1, 17) ~= plain then return -1 end
  local group = sub(value, 19, 18 + byte(value, 18))
  if ended[group] then
    ended[group] = ended[group] .. member
  else
    groups[#groups + 1], ended[group] = group, member
  end
end
call('ZCARD', calls)
call('HLEN', items)
local slots
if #groups >= 20 and PACKED[redis.pcall('OBJECT', 'ENCODING', working)] then
  local all, by = call('HGETALL', working), {}
  for i = 1, #all, 2 do by[all[i]] = all[i + 1] end
  slots = {}
  for i = 1, #groups do slots[i] = by[groups[i]] or false end
else
  slots = call('HMGET', working, unpack(groups))
end
-- Slots that stay, groups without any, and whether a limit has to be looked up.
local sets, gone, several = {}, {}, group_due
for i = 1, #groups do
  local held, members = slots[i], ended[groups[i]]
  if held == members then
    gone[#gone + 1] = groups[i]
  elseif held then
    for from = 1, #members, 16 do
      local member = sub(members, from, from + 15)
      local at = string.find(held, member, 1, true)
      while at and at % 16 ~= 1 do at = string.find(held, member, at + 1, true) end
      if at then held = sub(held, 1, at - 1) .. sub(held, at + 16) end
    end
    if held == '' then
      gone[#gone + 1] = groups[i]
    else
      sets[#sets + 1] = groups[i]
      sets[#sets + 1] = held
      several = true
    end
  end
end
-- The first removal is a ZREM, which needs no trial before it.
call('HDEL', none, '')
call('ZREM', leased, unpack(ARGV, members_at))
if sets[1] then call('HSET', working, unpack(sets)) end
if gone[1] then call('HDEL', working, unpack(gone)) end
local num_gone = call('HDEL', leases, unpack(ARGV, members_at))
call('HDEL', items, unpack(ARGV, members_at))
call('ZREM', calls, token)
if several then
-- include: due
-- include: leases
-- include: grouping
  line_up(groups)
  return num_gone
end
-- The same as `line_up` of groups without items in work, without its functions.
local index_of = index .. ':' .. (call('HGET', meta, 'groups') or '0') .. ':'
local rests, now, fit = call('ZMSCORE', resting, unpack(groups)), nil, {}
for i = 1, #groups do
  local rest = rests[i]
  if rest and not now then
    local clock = call('TIME')
    now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  end
  if not (rest and rest + 0 > now) and call('EXISTS', index_of .. groups[i]) == 1 then
    fit[#fit + 1] = groups[i]
  end
end
if fit[1] then
  local last, turns = call('HINCRBY', meta, 'turn', #fit), {}
  for i = 1, #fit do
    turns[2 * i - 1], turns[2 * i] = string.format('%d', last - #fit + i), fit[i]
  end
  call('ZADD', ready, 'NX', unpack(turns))
end
return num_gone

-- Included by steps on sets with groups, after check, due and leases: the rules of turns, limits and
-- rests. They have the set's keys as queue, none, items, meta, ready, resting, waiting, working,
-- limits, shared, index.
-- ARGV:
--   group_limit: number     the caller's limit of a group's items in work; 0: none
--   group_interval: number  its time between two starts of a group, in ms
--   group_due: flag         whether scores are times before which items do not start
--
-- Theory of operation. The queue and the payloads are the truth: a payload has its group's length
-- (one byte) and its group in front. Each group has an index, a sorted set of its queued digests.
-- An index may have entries too many, never too few: they are dropped when their turn comes. A group
-- with queued items is in exactly one state. It stands in `ready` by its turn, it rests (`resting`,
-- until a time in ms), its first item is not due (`waiting`, until a time in ms), or it has as many
-- items in work as its limit allows (`working`: the digests, end to end). A step that ends such a
-- state calls `line_up`, which puts the group where it belongs.
-- The group '' has the items without a group. It has neither limit nor interval.
local sub, byte = string.sub, string.byte
-- The prefix of all indexes. `clear` begins another one.
local index_of = index .. ':' .. (call('HGET', meta, 'groups') or '0') .. ':'
-- Returns the fields of a hash. One that may be packed is read once, if they are many.
local function fields_of(key, fields)
  if #fields >= 20 then
    local num = call('HLEN', key)
    if num == 0 then return {} end
    local encoding = num <= 512 and redis.pcall('OBJECT', 'ENCODING', key)
    if encoding == 'listpack' or encoding == 'ziplist' then
      local all, by, found = call('HGETALL', key), {}, {}
      for i = 1, #all, 2 do by[all[i]] = all[i + 1] end
      for i = 1, #fields do found[i] = by[fields[i]] or false end
      return found
    end
  end
  return lookup('HMGET', key, fields)
end
-- Returns the limits of groups, and their intervals. Own values are stored as 'limit ms', '-' for
-- the caller's. Those of a crawl that runs are kept apart: its limit counts if a group has no own
-- one, its interval if it is longer. Their field '' is for all groups that they do not name.
local function limits_of(groups)
  local most, intervals = {}, {}
  for i = 1, #groups do
    local limited = groups[i] ~= ''
    most[i], intervals[i] = limited and group_limit or 0, limited and group_interval or 0
  end
  if call('EXISTS', limits, shared) == 0 then return most, intervals end
  local own, theirs = fields_of(limits, groups), fields_of(shared, groups)
  local others = call('HGET', shared, '') or '- -'
  for i = 1, #groups do
    if groups[i] ~= '' then
      local limit, interval = string.match(own[i] or '- -', '^(%S+) (%S+)')
      local other, longer = string.match(theirs[i] or others, '^(%S+) (%S+)')
      most[i] = tonumber(limit) or tonumber(other) or most[i]
      intervals[i] = math.max(tonumber(interval) or intervals[i], tonumber(longer) or 0)
    end
  end
  return most, intervals
end
-- Puts those groups at the end of the line that may start and do not stand in it. `filled`: whether
-- all of them have items. The time may be nil. Returns the number of groups that did not.
local function line_up(groups, now, filled)
  if #groups == 0 then return 0 end
  local slots, rests = fields_of(working, groups), lookup('ZMSCORE', resting, groups)
  local most, due_now, fit, waits = nil, nil, {}, {}
  for i = 1, #groups do
    local group, may = groups[i], true
    if slots[i] then
      -- Without an item in work each limit allows one.
      most = most or limits_of(groups)
      may = most[i] == 0 or #slots[i] < 16 * most[i]
    end
    if may and (rests[i] or group_due) then
      now = now or milliseconds(call('TIME'))
      may = not rests[i] or rests[i] + 0 <= now
    end
    if may and group_due then
      local first = call('ZRANGE', index_of .. group, '0', '0', 'WITHSCORES')[2]
      due_now = due_now or due_until() + 0
      may = first and first + 0 <= due_now
      if first and not may then
        waits[#waits + 1] = string.format('%.0f', math.ceil(first * 1000))
        waits[#waits + 1] = group
      end
    elseif may and not filled then
      may = call('EXISTS', index_of .. group) == 1
    end
    if may then fit[#fit + 1] = group end
  end
  bulk('ZADD', waiting, waits)
  if #fit == 0 then return 0 end
  local last, turns = call('HINCRBY', meta, 'turn', #fit), {}
  for i = 1, #fit do
    turns[2 * i - 1] = string.format('%d', last - #fit + i)
    turns[2 * i] = fit[i]
  end
  return bulk('ZADD', ready, turns, 'NX')
end
-- Returns the slots of leases that ended: group, member, ... It returns the groups.
local function free(list)
  local groups, places = {}, {}
  for i = 1, #list, 2 do
    if not places[list[i]] then
      groups[#groups + 1] = list[i]
      places[list[i]] = #groups
    end
  end
  if #groups == 0 then return groups end
  local slots, changed = fields_of(working, groups), {}
  for i = 1, #list, 2 do
    local k, member = places[list[i]], list[i + 1]
    local held = slots[k]
    local at = held and string.find(held, member, 1, true)
    while at and at % 16 ~= 1 do at = string.find(held, member, at + 1, true) end
    if at then
      slots[k] = sub(held, 1, at - 1) .. sub(held, at + 16)
      changed[k] = true
    end
  end
  local sets, gone = {}, {}
  for k in pairs(changed) do
    if slots[k] == '' then
      gone[#gone + 1] = groups[k]
    else
      sets[#sets + 1] = groups[k]
      sets[#sets + 1] = slots[k]
    end
  end
  bulk('HSET', working, sets)
  bulk('HDEL', working, gone)
  return groups
end
-- Appends score, member to the list of a group, in the order of groups.
local function sort_in(by, order, group, score, member)
  local list = by[group]
  if list then
    local length = #list
    list[length + 1], list[length + 2] = score, member
  else
    by[group], order[#order + 1] = {score, member}, group
  end
end
-- Returns the group of a payload. A lost payload has none.
local function group_in(payload)
  return payload and payload ~= '' and sub(payload, 2, 1 + byte(payload)) or ''
end
-- Lets groups rest until a time in ms, or longer if they do so already. Those that stand in line leave it.
local function let_rest(groups, until_then)
  local rests, limited = {}, {}
  for i = 1, #groups do
    if groups[i] ~= '' then
      limited[#limited + 1] = groups[i]
      rests[2 * #limited - 1], rests[2 * #limited] = string.format('%.0f', until_then), groups[i]
    end
  end
  bulk('ZADD', resting, rests, 'GT')
  bulk('ZREM', ready, limited)
end

-- Returns a page of the groups of one kind. It only reads.
-- KEYS: queue, none, items, leased, leases, meta, ready, resting, waiting, working, limits, shared, index
-- ARGV:
--   kind: number   1: in line, 2: resting, 3: waiting, 4: with items in work, 5: with own values
--   cursor
--   num: number    of groups that the server is to look at
--   @grouping
-- Returns {the next cursor, name, entries of the index, items in work, whether it stands in line or may,
--   end of its rest in ms or '', limit, interval in ms, ...}, without groups of an earlier kind
-- include: check
-- include: due
-- include: leases
-- include: grouping
local now = milliseconds(call('TIME'))
local keys = {ready, resting, waiting, working, limits}
local page = call(kind < 4 and 'ZSCAN' or 'HSCAN', keys[kind], cursor, 'COUNT', num)
local names = {}
for i = 1, #page[2], 2 do names[#names + 1] = page[2][i] end
for earlier = 1, kind - 1 do
  local there = earlier < 4 and lookup('ZMSCORE', keys[earlier], names) or fields_of(working, names)
  local rest = {}
  for i = 1, #names do
    if not there[i] then rest[#rest + 1] = names[i] end
  end
  names = rest
end
local reply = {page[1]}
if #names == 0 then return reply end
local most, intervals = limits_of(names)
local slots, rests = fields_of(working, names), lookup('ZMSCORE', resting, names)
local dues = lookup('ZMSCORE', waiting, names)
for i = 1, #names do
  local queued, rest = call('ZCARD', index_of .. names[i]), rests[i]
  local num_leased = slots[i] and #slots[i] / 16 or 0
  if rest and rest + 0 <= now then rest = nil end
  local may = queued > 0 and not rest and (most[i] == 0 or num_leased < most[i])
    and not (dues[i] and dues[i] + 0 > now)
  -- A rest that is over, of a group without items, is not one of them.
  local there = kind ~= 2 or rest or queued + num_leased > 0
  for _, value in ipairs(not there and {} or {names[i], queued, num_leased, may and 1 or 0, rest or '', most[i],
    string.format('%.0f', intervals[i])}) do
    reply[#reply + 1] = value
  end
end
return reply

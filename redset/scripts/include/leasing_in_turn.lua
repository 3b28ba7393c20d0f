-- Included by lease_in_turn, a piece of it: a short path without functions, which saves a third of the
-- step. It is for a few items, if no lease or rest is over, no group has own values, none of the items
-- has a record, and one round has them all. Each 16th call takes the long path, and so does a call that
-- finds anything else. That call has written nothing.
if not (held or has_own or group_due) and num <= first and num < 20 and clock[2] % 16 > 0
  and call('ZCOUNT', leased, '-inf', now) + call('ZCOUNT', resting, '-inf', now) == 0 then
  -- A number costs more than its text.
  local groups = call('ZRANGE', ready, '0', num == 1 and '0' or num - 1)
  local num_groups, got, bytes = #groups, 0, 0
  local short = num_groups > 0
  local index_of = index .. ':' .. (call('HGET', meta, 'groups') or '0') .. ':'
  local slots = short and group_limit > 0 and call('HMGET', working, unpack(groups))
  local share = short and num_groups < num and math.floor(num / num_groups) or 1
  local members, parts, again = {}, {}, nil
  local quit = {}
  for i = 1, num_groups do
    local group, room, leaving = groups[i], share, false
    if group_limit > 0 then
      local left = slots[i] and group_limit - #slots[i] / 16 or group_limit
      if left <= room then room, leaving = left, true end
    end
    if group_interval > 0 and room > 1 then room = 1 end
    leaving = leaving or group_interval > 0
    short = short and room > 0 and group ~= ''
    -- One more than it takes shows whether the group then has others.
    local last = leaving and room - 1 or room
    local part = short and call('ZRANGE', index_of .. group, '0', last == 0 and '0' or last) or {}
    if leaving or #part <= room then
      quit[#quit + 1] = group
    else
      part[room + 1] = nil
      again = again or {}
      again[#again + 1] = group
    end
    short = short and #part > 0
    parts[i] = part
    for k = 1, #part do
      got = got + 1
      members[got] = part[k]
    end
  end
  short = short and (got == num or not again)
  local scores, payloads, known, fronts, list
  if short then
    scores = call('ZMSCORE', queue, unpack(members))
    payloads = call('HMGET', items, unpack(members))
    known = call('HMGET', leases, unpack(members))
    fronts, list = {}, {}
    local at = 0
    for i = 1, num_groups do
      local front, part = string.char(#groups[i]) .. groups[i], parts[i]
      for k = 1, #part do
        at = at + 1
        local payload = payloads[at]
        if known[at] or not (scores[at] and payload)
          or string.find(payload, front, 1, true) ~= 1 then
          short = false
          break
        end
        bytes = bytes + #payload
        fronts[at] = front
      end
    end
  end
  if short and bytes < BYTES then
    local expiry = string.format('%d', now + ttl)
    if slots then
      for i = 1, num_groups do
        local mine = table.concat(parts[i])
        list[2 * i - 1], list[2 * i] = groups[i], slots[i] and slots[i] .. mine or mine
      end
      call('HSET', working, unpack(list))
      list = {}
    end
    -- The last one first: so the server finds its place at once while it keeps the rows packed.
    for i = 1, got do list[2 * i - 1], list[2 * i] = expiry, members[got - i + 1] end
    call('ZADD', leased, unpack(list))
    local in_hand, found = hand + got, {}
    local head, tail = token .. '0', in_hand > 1 and string.format('0/%d ', in_hand) or '0 '
    for i = 1, got do
      list[2 * i - 1], list[2 * i] = members[i], head .. fronts[i] .. tail .. scores[i]
      found[2 * i - 1], found[2 * i] = members[i], scores[i]
    end
    for i = 1, got do found[2 * got + i] = payloads[i] end
    call('HSET', leases, unpack(list))
    call('ZADD', calls, expiry, token)
    if group_interval > 0 then
      local rest, rests = string.format('%d', now + group_interval + 1), {}
      for i = 1, num_groups do rests[2 * i - 1], rests[2 * i] = rest, groups[i] end
      call('ZADD', resting, 'GT', unpack(rests))
    end
    call('ZREM', queue, unpack(members))
    for i = 1, num_groups do call('ZREM', index_of .. groups[i], unpack(parts[i])) end
    if quit[1] then call('ZREM', ready, unpack(quit)) end
    if again then
      local turn, turns = call('HINCRBY', meta, 'turn', #again), {}
      for k = 1, #again do
        turns[2 * k - 1], turns[2 * k] = string.format('%d', turn - #again + k), again[k]
      end
      call('ZADD', ready, unpack(turns))
    end
    found[#found + 1] = expiry
    return found
  end
end

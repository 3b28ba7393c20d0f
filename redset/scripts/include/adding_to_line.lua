-- Included by `add`, before the functions of its ways: a plain add to groups without own values, if
-- none of the items is leased or delayed. It writes what the long way does, in the same order. A
-- short path: a page of links takes a third less.
if condition == '' and remember ~= 'limited' and #ARGV < entries_at + 1000
  and not (again or wanted or max_size or asks or ties or aside or group_due) then
  local ever, sub, byte = remember == 'ever', string.sub, string.byte
  local width = ever and 4 or 3
  local num = (#ARGV - entries_at + 1) / width
  call('ZCARD', queue)
  call('HLEN', items)
  local stored = call('HMGET', meta, 'options', 'epoch', 'old', 'level', 'split', 'count', 'groups',
    'old_groups')
  -- Any other set is refused, or begun, by the long way.
  local short = stored[1] == options and not stored[8] and call('EXISTS', name, limits, shared) == 0
    and (not ever or (stored[2] == epoch and stored[4] and not stored[3]))
  local num_leases = short and call('HLEN', leases) or 0
  -- A few records are read at once: while they are packed, each would be searched from the start.
  local records = short and num_leases > 0 and num_leases < 4 * num and num_leases <= 512
    and call('HKEYS', leases) or {}
  local recorded = {}
  for i = 1, #records do recorded[records[i]] = true end
  local members, groups = {}, {}
  for i = 1, num do
    local at = entries_at + (i - 1) * width
    local member, payload = ARGV[at + 1], ARGV[at + 2]
    local group = sub(payload, 2, 1 + byte(payload))
    members[i], groups[i] = member, group
    if recorded[member] then short = false end
  end
  if short and num_leases > 0 and not records[1] then
    for _, value in ipairs(call('HMGET', leases, unpack(members))) do
      if value then short = false end
    end
  end
  if short then
    call('ZADD', none, 'XX', '0', '')
    call('HSET', meta, 'layout', '1')
    local memory = ever and memory_from(stored[4], stored[5], stored[6], seen, epoch)
    local taken, zadd, hset, by, order = 0, {}, {}, {}, {}
    for i = 1, num do
      local at = entries_at + (i - 1) * width
      local integer = ever and ARGV[at + 3]
      if not ever or call('SADD', bucket_of(memory, integer), integer) == 1 then
        local place, score, member, group = 2 * taken, ARGV[at], members[i], groups[i]
        taken = taken + 1
        zadd[place + 1], zadd[place + 2] = score, member
        hset[place + 1], hset[place + 2] = member, ARGV[at + 2]
        local list = by[group]
        if list then
          local length = #list
          list[length + 1], list[length + 2] = score, member
        else
          -- With its values, since it takes time to grow.
          by[group], order[#order + 1] = {score, member}, group
        end
      end
    end
    local added = 0
    if taken > 0 then
      call('HSET', items, unpack(hset))
      local index_of = index .. ':' .. (stored[7] or '0') .. ':'
      for i = 1, #order do call('ZADD', index_of .. order[i], unpack(by[order[i]])) end
      added = call('ZADD', queue, unpack(zadd))
      if ever then
        memory.count = memory.count + taken
        if grow(memory) > 0 then
          save(meta, memory)
        else
          call('HSET', meta, 'count', format('%d', memory.count))
        end
      end
      -- The same as `line_up` of groups that have items.
      local slots, encoding = {}, #order >= 20 and redis.pcall('OBJECT', 'ENCODING', working)
      if encoding == 'listpack' or encoding == 'ziplist' then
        local all, of = call('HGETALL', working), {}
        for i = 1, #all, 2 do of[all[i]] = all[i + 1] end
        for i = 1, #order do slots[i] = of[order[i]] end
      else
        slots = call('HMGET', working, unpack(order))
      end
      local rests, now, fit = call('ZMSCORE', resting, unpack(order)), nil, {}
      for i = 1, #order do
        local rest, held = rests[i], slots[i]
        if rest and not now then
          local clock = call('TIME')
          now = clock[1] * 1000 + math.floor(clock[2] / 1000)
        end
        if not (rest and rest + 0 > now)
          and (not held or group_limit == 0 or #held < 16 * group_limit) then
          fit[#fit + 1] = order[i]
        end
      end
      if fit[1] then
        local turn, turns = call('HINCRBY', meta, 'turn', #fit), {}
        for i = 1, #fit do
          turns[2 * i - 1], turns[2 * i] = string.format('%d', turn - #fit + i), fit[i]
        end
        call('ZADD', ready, 'NX', unpack(turns))
      end
    end
    return {added, taken - added, ''}
  end
end

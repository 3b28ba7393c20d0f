-- Included by settle, a piece of it: a short path, which saves half of the step. It is for steps
-- that only acknowledge a few items, if none of them was added while it was leased.
do
  local short, place, i = num_groups > 0, groups_at, 1
  while short and i <= num_groups do
    -- fields: groups at place
    local n, plain = tonumber(num), token .. '0'
    place = place + groups_width
    -- Many packed records would each be searched from the start: see values_reader.
    short = how == 'ack' and n < 50
    local values = short and call('HMGET', leases, unpack(ARGV, place, place + n - 1)) or {}
    for k = 1, #values do
      if not values[k] or string.sub(values[k], 1, 17) ~= plain then short = false end
    end
    place = place + n
    i = i + 1
  end
  if short and place > #ARGV then
    call('ZCARD', calls)
    if keyed then call('HLEN', items) end
    -- The first removal is a ZREM, which needs no trial before it.
    call('HDEL', none, '')
    local counts = {}
    place = groups_at
    for group = 1, num_groups do
      -- fields: groups at place
      place = place + groups_width
      local last = place + tonumber(num) - 1
      call('ZREM', leased, unpack(ARGV, place, last))
      counts[group] = call('HDEL', leases, unpack(ARGV, place, last))
      if keyed then call('HDEL', items, unpack(ARGV, place, last)) end
      call('ZREM', calls, token)
      place = last + 1
    end
    -- A reply of two tables would cost more than a command.
    if num_groups == 1 then return counts[1] end
    return {counts, ''}
  end
end

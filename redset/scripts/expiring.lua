-- Included by steps that give back what nobody holds any more, behind leases and portions. They have
-- what finishing asks for, of which functions are made only where there is something to give back.
-- Gives back up to so many of those whose lease or delay is over, of which it reads `first` at first.
-- Returns how many, and how many of these became dead letters.
local function expire(now, limit, first)
  first = math.min(first, limit)
  local head = call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', '0', first)
  if #head == 0 then return 0, 0 end
  -- First, since they free memory: the removals of finishing, of nothing.
  call('ZREM', none, '')
  call('HDEL', none, '')
-- include: finishing
  call('ZCARD', queue)
  local members, values, read_values = {}, {}, values_reader(#head < first and #head or limit)
  local n = in_portions(limit, first, function(at, want)
    local part = at == 0 and head
      or call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', at, want)
    local found, sizes = read_values(part), items and max > 0 and {}
    for i = 1, #part do
      -- A stray one, which nothing of redset leaves, is not lost either.
      found[i] = found[i] or lease_value(DELAYED, 0, '0', '', '')
      -- The payload of what dies goes into its letter.
      if sizes then
        local dies = tried((parse(found[i]))) + 1 >= max
        sizes[i] = dies and call('HSTRLEN', items, part[i])
      end
    end
    members, values = append(members, part), append(values, found)
    return part, 1, sizes or nil
  end)
  cut(members, n)
  return #members, finish('expire', members, values, now, {0, '', '', ''})
end
-- Makes rows anew for what only records tell of, since `leased` was deleted or evicted, once all else
-- is gone. Each lasts for a minute: its holder may be at work, and settle or renew it.
local function heal(now, limit)
  if call('ZCARD', queue) > 0 or call('EXISTS', leased) == 1 then return end
  local rows, stray, found = {}, {}, call('HSCAN', leases, 0, 'COUNT', limit)[2]
  for i = 1, math.min(#found, 2 * limit), 2 do
    if owner_of(found[i + 1]) == QUEUED then
      stray[#stray + 1] = found[i]
    else
      rows[#rows + 1] = string.format('%d', now + 60000)
      rows[#rows + 1] = found[i]
    end
  end
  if #found == 0 then return end
  call('HDEL', none, '')
  bulk('ZADD', leased, rows)
  bulk('HDEL', leases, stray)
end

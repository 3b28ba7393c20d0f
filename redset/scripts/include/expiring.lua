-- Included by steps that return expired leases, after leases and portions. They have the locals of
-- finishing. Its functions are made only if a lease has expired.
-- Returns up to limit expired leases and delays to the queue; it reads `first` of them at first.
-- The results are their number, the number that became dead letters, and whether their bytes ended
-- it.
local function expire(now, limit, first)
  first = math.min(first, limit)
  local head = call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', '0', first)
  if #head == 0 then return 0, 0, false end
  -- First, since they free memory: the removals of finishing, of nothing.
  call('ZREM', none, '')
  call('HDEL', none, '')
-- include: finishing
  call('ZCARD', queue)
  local members, values, read_values = {}, {}, values_reader(#head < first and #head or limit)
  local n, more = in_portions(limit, first, function(at, want)
    local part = at == 0 and head
      or call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', at, want)
    local found, sizes = read_values(part), items and max_attempts > 0 and {}
    for i = 1, #part do
      -- A stray payload, which redset never leaves, is not lost either.
-- ungrouped:
      found[i] = found[i] or lease_value(DELAYED, 0, '0', '', '')
-- grouped:
      if not found[i] then
        local payload = call('HGET', items, part[i])
        local front = payload and payload ~= '' and sub(payload, 1, 1 + byte(payload)) or '\0'
        found[i] = lease_value(DELAYED, 0, '0', '', '', front)
      end
-- both:
      -- The payload of a dying item goes into its letter.
      if sizes then
        local dies = tried((parse(found[i]))) + 1 >= max_attempts
        sizes[i] = dies and call('HSTRLEN', items, part[i])
      end
    end
    members, values = append(members, part), append(values, found)
    return part, 1, sizes or nil
  end)
  cut(members, n)
  local expired = 0
  for i = 1, #members do
    if owner_of(values[i]) ~= DELAYED then expired = expired + 1 end
  end
  if expired > 0 then count_event('expired', expired) end
  return #members, finish('expire', members, values, now, {0, '', '', ''}), more
end
-- Makes new rows for leases that have only records, because `leased` was deleted or evicted. It
-- does so when nothing else can be handed out. Each row lasts for a minute: its holder may be at
-- work, and settle or renew it. Records are drawn at random, so that in the end each is met.
local function heal(now, limit)
  local held = call('ZCARD', leased)
  if call('HLEN', leases) <= held then return end
  -- Large members are read one by one.
  local some = call('HRANDFIELD', leases, 1)[1]
  local num = math.max(1, math.min(limit, math.floor(BYTES / math.max(1, #some))))
  local found = call('HRANDFIELD', leases, num, 'WITHVALUES')
  local is_empty = held == 0 and call('ZCARD', queue) == 0
  local rows, stray = {}, {}
  for i = 1, #found, 2 do
    local member, value = found[i], found[i + 1]
    if owner_of(value) == QUEUED then
      if is_empty then stray[#stray + 1] = member end
    elseif not (call('ZSCORE', leased, member) or call('ZSCORE', queue, member)) then
      rows[#rows + 1] = string.format('%d', now + 60000)
      rows[#rows + 1] = member
    end
  end
  if #rows + #stray == 0 then return end
  call('HDEL', none, '')
  bulk('ZADD', leased, rows)
  bulk('HDEL', leases, stray)
end

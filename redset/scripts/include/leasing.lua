-- Included by lease, a piece of it: a short path, which saves half of the step. It is for the first
-- call with a token, if no lease has expired and none of the items has a record. Each 16th call
-- takes the long path, and so does a call that finds anything else. That call has written nothing.
if not held and num <= 100 and clock[2] % 16 > 0
  and call('ZCOUNT', leased, '-inf', now) == 0 then
  local records = call('HLEN', leases)
  local got, bytes, largest, want = 0, 0, 1, first
  -- A few hundred packed records would each be searched from the start: see values_reader.
  local short = records == 0 or records > 512 or num < 50
  local found, payloads
  while short and got < num do
    want = math.min(want, num - got)
    local part = read(got, want)
    local n, names = #part / 2, {}
    for i = 1, n do
      local member = part[2 * i - 1]
      names[i] = member
      bytes = bytes + #member
      if #member > largest then largest = #member end
    end
    if n > 0 and records > 0 then
      for _, value in ipairs(call('HMGET', leases, unpack(names))) do
        if value then short = false end
      end
    end
    if n > 0 and items then
      local some = call('HMGET', items, unpack(names))
      payloads = payloads or {}
      for i = 1, n do
        local payload = some[i]
        if not payload then
          short = false
          break
        end
        payloads[got + i] = payload
        bytes = bytes + #payload
        if #payload > largest then largest = #payload end
      end
    end
    short = short and bytes < BYTES
    if found then
      for i = 1, 2 * n do found[2 * got + i] = part[i] end
    else
      found = part
    end
    got = got + n
    if n < want then break end
    want = math.max(1, math.min(2 * want, math.floor((BYTES - bytes) / largest)))
  end
  if short and got > 0 then
    local expiry = string.format('%d', now + ttl)
    -- The last member is first in the list: so the server finds its place at once while it keeps the
    -- rows packed, and members of one score are in the order of the queue.
    local list, last = {}, 2 * got
    for i = 1, last, 2 do list[i], list[i + 1] = expiry, found[last - i] end
    call('ZADD', leased, unpack(list))
    local in_hand = hand + got
    local value = token .. (in_hand > 1 and string.format('00/%d ', in_hand) or '00 ')
    for i = 1, last, 2 do list[i], list[i + 1] = found[i], value .. found[i + 1] end
    call('HSET', leases, unpack(list))
    call('ZADD', calls, expiry, token)
    call('ZREMRANGEBYRANK', queue, '0', got - 1)
    -- A reply of one table: each further one would cost as much as a command.
    if payloads then
      for i = 1, got do found[last + i] = payloads[i] end
    end
    found[#found + 1] = expiry
    return found
  end
end

-- Hands out the lowest items for a time. Sent again with the same token within that time and
-- before the first of them is settled, it gives the same ones.
-- KEYS: queue, leased, leases, calls, dead, items (with a key=)
-- ARGV: token, how many, for how long in ms, most attempts, whether only what is due, how many
--   expired ones to give back
-- Returns {expiry in ms, whether more may be there, members without payload, member, score,
--   attempts, ...}; with a key= member, score, attempts, payload, ...
-- include: check
-- include: due
local queue, leased, leases, calls, dead, items = unpack(KEYS)
local token, num, ttl, max = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local due, limit = ARGV[5] == '1', tonumber(ARGV[6])
-- include: leases
-- include: expiring
local clock = call('TIME')
local now = milliseconds(clock)
local held = call('ZSCORE', calls, token)
if items then call('HLEN', items) end
expire(now, limit)
local old = call('ZRANGEBYSCORE', calls, '-inf', now, 'LIMIT', '0', limit)
if #old > 0 then call('ZREM', calls, unpack(old)) end

-- A call that is over its time begins anew: what is left of it is about to be given back.
if held and tonumber(held) > now then
  local mine, members = {}, call('ZRANGEBYSCORE', leased, held, held)
  local values = values_of(members)
  for i = 1, #members do
    if values[i] and owner_of(values[i]) == token then
      local attempts, score = parse(values[i])
      mine[#mine + 1] = {tonumber(score), i, members[i], score, attempts}
    end
  end
  table.sort(mine, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  local reply = {held, 0, 0}
  for _, lease in ipairs(mine) do
    reply[#reply + 1] = lease[3]
    reply[#reply + 1] = lease[4]
    reply[#reply + 1] = lease[5]
    if items then reply[#reply + 1] = call('HGET', items, lease[3]) or '' end
  end
  if #mine > 0 then return reply end
end

local expiry = string.format('%d', now + ttl)
local reply, got, dropped, budget = {expiry, 0, 0}, 0, 0, num + limit
local expiries, values, gone = {}, {}, {}
local fresh = token .. '00 '
local function keep(member, value)
  values[#values + 1] = member
  values[#values + 1] = value
end
local width = items and 4 or 3
while got < num and budget > 0 do
  local want = math.min(num - got, budget, 1000)
  local found
  if due then
    found = call('ZRANGEBYSCORE', queue, '-inf', due_until(clock), 'WITHSCORES', 'LIMIT', '0', want)
  else
    found = call('ZRANGE', queue, '0', want - 1, 'WITHSCORES')
  end
  local n, members = #found / 2, {}
  if n == 0 then break end
  for i = 1, n do members[i] = found[2 * i - 1] end
  local known = values_of(members)
  local payloads = items and call('HMGET', items, unpack(members))
  call('ZREMRANGEBYRANK', queue, '0', n - 1)
  for i = 1, n do
    local member, score, value = members[i], found[2 * i], known[i]
    if value and owner_of(value) ~= QUEUED then
      -- It was added while it is held back: it waits for the end of that.
      local attempts, before, _, last = parse(value)
      keep(member, lease_value(owner_of(value), attempts, before, score, last))
    elseif payloads and not payloads[i] then
      dropped = dropped + 1
      if value then gone[#gone + 1] = member end
    else
      local attempts, last, _ = '0', '', nil
      if value then
        attempts, _, _, last = parse(value)
        value = lease_value(token, attempts, score, '', last)
      end
      keep(member, value or fresh .. score)
      -- Places that are counted are found sooner than by #.
      local at = 3 + got * width
      reply[at + 1], reply[at + 2], reply[at + 3] = member, score, attempts
      if payloads then reply[at + 4] = payloads[i] end
      got = got + 1
      expiries[2 * got - 1], expiries[2 * got] = expiry, member
    end
  end
  budget = budget - n
end
bulk('HDEL', leases, gone)
bulk('ZADD', leased, expiries)
bulk('HSET', leases, values)
if got > 0 then call('ZADD', calls, expiry, token) end
if got < num and budget <= 0 then reply[2] = 1 end
reply[3] = dropped
return reply

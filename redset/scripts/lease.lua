-- Leases the lowest items for a time. If it is sent again with the same token, within that time and
-- before the first of them is settled, it returns the same ones. Later, the rest of them returns to
-- the queue before others are leased.
-- KEYS: queue, none, leased, leases, calls, dead, counts, paused; with key= items
-- ARGV:
--   token
--   num: number           limit of items
--   ttl: number           time of the leases in ms
--   max_attempts: number
--   due: flag             only items that are due
--   limit: number         limit of expired leases to return
--   hand: number          number of leases that the worker has in hand
--   passes: flag          skips suspects that may not be in such a cohort
--   first: number         number of items to read at first
-- Returns {expiry in ms, whether there may be more (2: a suspect stopped it), members without
--   payload, the smallest cohort that a suspect among them may be in (0: no suspect), number of new
--   dead letters, {member, score, ...}, {place, attempts, ...} of items with attempts}; with a key=
--   also payloads. If only the leases and the expiry are not 0, it may return {member, score, ...,
--   expiry in ms}; with a key= {member, score, ..., payload, ..., expiry in ms}
-- include: check
-- include: counting
-- include: due
-- include: bytes
-- Time for which a token is known after its lease, in ms: a client's retries may take as long.
local KEPT = 600000
-- First, since it frees memory: the removal at the end of this step, of nothing.
call('ZREMRANGEBYRANK', none, '1', '0')
local clock = call('TIME')
local now = milliseconds(clock)
local held = call('ZSCORE', calls, token)
if items then call('HLEN', items) end
local function read(at, want)
  if due then
    return call('ZRANGEBYSCORE', queue, '-inf', due_until(clock), 'WITHSCORES', 'LIMIT', at, want)
  end
  -- A number costs more than its text.
  return call('ZRANGE', queue, at == 0 and '0' or at, at + want - 1, 'WITHSCORES')
end
-- From a set that is paused, only a call that is sent again gets its leases.
local is_paused, NOTHING = call('EXISTS', paused) == 1, {'0', 0, 0, 0, 0, {}, {}, {}}
if is_paused and not held then return NOTHING end
-- include: leasing
-- include: leases
-- include: portions
-- include: expiring
-- The other removals of this step, of nothing.
call('ZREM', none, '')
call('HDEL', none, '')

if held then
-- include: resending
end
if is_paused then return NOTHING end
local back, died, expired_more = expire(now, limit, first)
local old = call('ZRANGEBYSCORE', calls, '-inf', now - KEPT, 'LIMIT', '0', limit)
if #old > 0 then call('ZREM', calls, unpack(old)) end

local expiry = string.format('%d', now + ttl)
local got, dropped, budget = 0, 0, num + limit
local taken, attempted, texts = {}, {}, items and {}
local expiries, values, gone, before = {}, {}, {}, {}
-- Positions after which it continues, and the members that it removes: all of these, or if some are
-- skipped only the others.
local at, removed, passed, stopped, bound = 0, {}, 0, false, math.huge
local bytes, largest, want, read_values = 0, 1, first, values_reader(num)
while got < num and budget > 0 and (bytes < BYTES or #removed == 0) and not stopped do
  want = math.min(want, num - got, budget)
  local found = read(at, want)
  if #found == 0 and at == 0 and back == 0 then heal(now, limit) end
  local n, members = #found / 2, {}
  if n == 0 then break end
  for i = 1, n do members[i] = found[2 * i - 1] end
  local known = read_values(members)
  local payloads = items and call('HMGET', items, unpack(members))
  for i = 1, n do
    local member, score, value = members[i], found[2 * i], known[i]
    local held_back = value and owner_of(value) ~= QUEUED and call('ZSCORE', leased, member)
    local attempts, last, suspect, most, _ = 0, '', false, math.huge, nil
    if value and not held_back then
      attempts, _, _, last = parse(value)
      attempts, most, suspect = tried(attempts)
      if suspect then most = math.min(bound, most) else most = bound end
    else
      most = bound
    end
    local size = #member + (payloads and payloads[i] and #payloads[i] or 0)
    if not held_back and hand + got + 1 > most then
      if not (passes and suspect and passed < 100) then
        stopped = true
        break
      end
      passed = passed + 1
      -- It is read but not leased: it counts less, or large ones would leave no room for others.
      size = size / 16
    else
      removed[#removed + 1] = member
      if held_back then
        -- It was added while it is held, and waits for the end of that.
        local tries, old_score, _, failure = parse(value)
        values[#values + 1] = member
        values[#values + 1] = lease_value(owner_of(value), tries, old_score, score, failure)
      elseif payloads and not payloads[i] then
        dropped = dropped + 1
        if value then gone[#gone + 1] = member end
      else
        bound = most
        if value then before[got + 1] = {attempts, suspect, last} end
        got = got + 1
        taken[2 * got - 1], taken[2 * got] = member, score
        if value and attempts > 0 then
          attempted[#attempted + 1], attempted[#attempted + 2] = got, attempts
        end
        if payloads then texts[got] = payloads[i] end
        expiries[2 * got - 1], expiries[2 * got] = expiry, member
      end
    end
    at = at + 1
    budget = budget - 1
    bytes = bytes + size
    if bytes >= BYTES and #removed > 0 then break end
    if size > largest then largest = size end
  end
  want = math.max(1, math.min(2 * want, math.floor((BYTES - bytes) / largest)))
end
local more = got < num and not stopped and (budget <= 0 or bytes >= BYTES or expired_more)
if more and not expired_more then
  more = at < (due and call('ZCOUNT', queue, '-inf', due_until(clock)) or call('ZCARD', queue))
end
-- A call that continues, because bytes ended this step, has as many in hand as it requests.
local in_hand = hand + got
if more then in_hand = math.max(in_hand, math.min(hand + num, bound)) end
local cohort = in_hand > 1 and '/' .. string.format('%d', in_hand) or ''
local fresh = token .. '00' .. cohort .. ' '
local place = #values
for i = 1, got do
  local member, score, was = taken[2 * i - 1], taken[2 * i], before[i]
  values[place + 1] = member
  if was then
    local attempts = string.format('%d', was[1]) .. (was[2] and (cohort == '' and '/1' or cohort) .. '!' or cohort)
    values[place + 2] = lease_value(token, attempts, score, '', was[3])
  else
    values[place + 2] = fresh .. score
  end
  place = place + 2
end
-- In this order a step that is refused midway loses nothing. A record without its row in `leased`
-- would lose the item. An item that is queued and leased is only leased once more.
bulk('ZADD', leased, expiries)
bulk('HSET', leases, values)
if got > 0 then call('ZADD', calls, expiry, token) end
if passed > 0 then
  bulk('ZREM', queue, removed)
elseif at > 0 then
  call('ZREMRANGEBYRANK', queue, 0, at - 1)
end
bulk('HDEL', leases, gone)
if stopped then more = 2 else more = more and 1 or 0 end
return {expiry, more, dropped, bound < math.huge and bound or 0, died, taken, attempted, texts}

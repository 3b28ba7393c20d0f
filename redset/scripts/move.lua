-- Moves queued items to another set of this server. It adds them by the other's rules, at their
-- scores and with their payloads. Items that the other refuses stay.
-- ungrouped:
-- KEYS: ours, none, our_leases, our_items, queue, leased, leases, meta, seen, items, name
-- grouped:
-- KEYS: ours, none, our_leases, our_items, queue, leased, leases, meta, seen, items, name, ready, resting, waiting, working, limits, shared, index
-- both:
--   This set's queue, leases and items; then the other set's keys.
-- ARGV:
-- grouped:
--   @grouping
-- both:
--   num: number    of members
--   first: number  number of payloads to read at first
--   tied: flag     true if this set has ties=
--   @adding
--   members...     then the token of each in the memory, if the other has one
-- Returns {number moved, number of members in this step, number added, number updated, number
--   refused}; or, if nothing was written, the reason of
--   `adding`, or {'SCORE', one that the other cannot have}
-- include: check
-- include: due
-- include: leases
-- grouped:
-- include: grouping
-- both:
-- include: portions
-- include: buckets
-- include: drop
-- include: adding
if wrong_type(our_leases, 'hash') then return redis.error_reply(WRONG_TYPE) end
local members, n = {unpack(ARGV, members_at, members_at + num - 1)}, num
local texts = false
if keyed then
  texts = {}
  n = in_portions(n, first, function(at, want)
    local names = {unpack(members, at + 1, at + want)}
    local part = call('HMGET', our_items, unpack(names))
    texts = append(texts, part)
    return names, 1, part
  end)
  cut(members, n)
end
local scores = call('ZMSCORE', ours, unpack(members))
local argv, names = {}, {}
for i = 1, n do
  -- A member without a payload was just removed by another consumer.
  if scores[i] and not (texts and not texts[i]) then
    local score = scores[i]
    if tied then score = math.floor(score / TIE) end
    if ties and not (score % 1 == 0 and math.abs(score + 0.5) <= 4095.5) then
      return {'SCORE', score}
    end
    names[#names + 1] = members[i]
    argv[#argv + 1] = score
    argv[#argv + 1] = members[i]
    if keyed then argv[#argv + 1] = texts[i] end
    argv[#argv + 1] = ARGV[members_at + num + i - 1]
  end
end
if #names == 0 then return {0, n, 0, 0, 0} end
local outcome = add(argv, 1, function()
  call('ZREM', none, '')
  call('HDEL', none, '')
end)
if outcome.err or type(outcome[1]) ~= 'number' then return outcome end
local moved = {}
for k = 1, #names do
  if string.sub(outcome[3], k, k) ~= 'r' then moved[#moved + 1] = names[k] end
end
if #moved == 0 then return {0, n, 0, 0, #names} end
-- A record of attempts ends with its item. A record of a lease does not.
local gone = with_attempts(moved, lookup('HMGET', our_leases, moved))
call('ZREM', ours, unpack(moved))
bulk('HDEL', our_leases, gone)
if keyed then call('HDEL', our_items, unpack(moved)) end
return {#moved, n, outcome[1], outcome[2], #names - #moved}

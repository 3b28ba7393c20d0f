-- Returns the page of members behind the last one seen, in order of score, then bytes.
-- Paging by rank would miss members that stay while others go.
-- KEYS: queue, items (with a key=)
-- ARGV: how many, and behind a first page: the last score and member seen
-- Returns {members, scores, payloads}
local queue, items, num, score, last = KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2], ARGV[3]
local from = 0
-- Not Lua's own comparison, which follows the server's locale.
local function behind(member)
  local a, b = #member, #last
  for i = 1, math.min(a, b) do
    local x, y = string.byte(member, i), string.byte(last, i)
    if x ~= y then return x > y end
  end
  return a > b
end
if score then
  local low = redis.call('ZCOUNT', queue, '-inf', '(' .. score)
  local high = low + redis.call('ZCOUNT', queue, score, score)
  local stored = redis.call('ZSCORE', queue, last)
  if stored and tonumber(stored) == tonumber(score) then
    from = redis.call('ZRANK', queue, last) + 1
  else
    while low < high do
      local middle = math.floor((low + high) / 2)
      local member = redis.call('ZRANGE', queue, middle, middle)[1]
      if behind(member) then high = middle else low = middle + 1 end
    end
    from = low
  end
end
local members, scores, payloads = {}, {}, {}
local found = redis.call('ZRANGE', queue, from, from + num - 1, 'WITHSCORES')
for i = 1, #found, 2 do
  members[#members + 1] = found[i]
  scores[#scores + 1] = found[i + 1]
end
if items and #members > 0 then payloads = redis.call('HMGET', items, unpack(members)) end
return {members, scores, payloads}

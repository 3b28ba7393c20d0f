-- Included by steps that page through a sorted set, in order of score, then bytes. Paging by rank
-- would miss members that stay while others go.
-- Gives up to so many members behind the last one seen, and their scores; where a range is given, of
-- those from its lowest to its highest score.
local function page(key, num, score, last, lowest, highest)
  local from = 0
  -- Not Lua's own comparison, which follows the server's locale.
  local function behind(member)
    local a, b = #member, #last
    local from = 1
    while from + 63 <= a and string.sub(member, from, from + 63) == string.sub(last, from, from + 63) do
      from = from + 64
    end
    for i = from, math.min(a, b) do
      local x, y = string.byte(member, i), string.byte(last, i)
      if x ~= y then return x > y end
    end
    return a > b
  end
  if score then
    local low = redis.call('ZCOUNT', key, '-inf', '(' .. score)
    local high = low + redis.call('ZCOUNT', key, score, score)
    local stored = redis.call('ZSCORE', key, last)
    if stored and tonumber(stored) == tonumber(score) then
      from = redis.call('ZRANK', key, last) + 1
    else
      while low < high do
        local middle = math.floor((low + high) / 2)
        local member = redis.call('ZRANGE', key, middle, middle)[1]
        if behind(member) then high = middle else low = middle + 1 end
      end
      from = low
    end
  elseif lowest and lowest ~= '' then
    from = redis.call('ZCOUNT', key, '-inf', '(' .. lowest)
  end
  local members, scores, to = {}, {}, from + num
  if highest and highest ~= '' then
    to = math.min(to, redis.call('ZCOUNT', key, '-inf', highest))
  end
  if to <= from then return members, scores end
  local found = redis.call('ZRANGE', key, from, to - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    members[#members + 1] = found[i]
    scores[#scores + 1] = found[i + 1]
  end
  return members, scores
end

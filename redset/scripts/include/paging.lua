-- Included by steps that page through a sorted set, in order of score, then bytes, after portions.
-- Paging by rank would miss members that stay while others go.
-- Returns the first rank of the page after the last member seen, and the rank after its end; within
-- a range if it has one.
local function ranks_of(key, num, score, last, lowest, highest)
  local from = 0
  -- Not Lua's own comparison, which follows the server's locale.
  local function is_after(member)
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
        if is_after(member) then high = middle else low = middle + 1 end
      end
      from = low
    end
  elseif lowest then
    from = redis.call('ZCOUNT', key, '-inf', '(' .. lowest)
  end
  local to = from + num
  if highest then to = math.min(to, redis.call('ZCOUNT', key, '-inf', highest)) end
  return from, to
end
-- Reads a page, `first` members of it at first. payloads_of(members), if it is passed, returns their
-- payloads. Returns members, scores, whether there may be more, and the payloads.
local function page(key, num, first, score, last, lowest, highest, payloads_of)
  local from, to = ranks_of(key, num, score, last, lowest, highest)
  local members, scores, payloads = {}, {}, {}
  if to <= from then return members, scores, false, payloads end
  local n, more = in_portions(to - from, first, function(at, want)
    local part = redis.call('ZRANGE', key, from + at, from + at + want - 1, 'WITHSCORES')
    local names, some = {}, nil
    for i = 1, #part / 2 do
      names[i] = part[2 * i - 1]
      scores[at + i] = part[2 * i]
    end
    if payloads_of and #names > 0 then
      some = payloads_of(names)
      payloads = append(payloads, some)
    end
    members = append(members, names)
    return names, 1, some
  end)
  return cut(members, n), cut(scores, n), more, cut(payloads, n)
end

-- Queues removed members again that could not be decoded, if dead letters cannot be written. Its
-- first write is a removal without effect: a full server performs a script after that. A member
-- among the newest dead letters is not queued: its step was performed, and the reply lost.
-- KEYS: queue; with second keys none, dead
-- ARGV:
--   first: number           number of letters to read at first
--   rows...(score, member)  the score is '' if it is unknown: then the lowest queued one, else 0
-- include: portions
redis.call('ZREMRANGEBYRANK', queue, 1, 0)
local lowest = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')[2] or '0'
local kept = {}
if dead and redis.call('TYPE', dead).ok == 'stream' then
  local to = '+'
  in_portions(1000, first, function(_, want)
    local raws = {}
    for i, entry in ipairs(redis.call('XREVRANGE', dead, to, '-', 'COUNT', want)) do
      raws[i], to = entry[2][2], '(' .. entry[1]
      kept[raws[i]] = true
    end
    return raws, 1
  end)
end
local back = {}
for i = rows_at, #ARGV, rows_width do
  -- fields: rows at i
  if not kept[member] then
    back[#back + 1] = score == '' and lowest or score
    back[#back + 1] = member
  end
end
if #back == 0 then return 0 end
return redis.call('ZADD', queue, 'NX', unpack(back))

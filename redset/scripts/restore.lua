-- Puts members back that were taken and could not be decoded, if no dead letters can be kept.
-- The removal of nothing is there for a full server, which lets a script write on after it.
-- What is among the newest dead letters was kept after all: its step's answer was lost.
-- KEYS: queue, none, dead (if there can be dead letters)
-- ARGV: how many letters to read at first, then score ('' if it is not known: the lowest that there
--   is, else 0), member, ...
-- include: portions
redis.call('ZREMRANGEBYRANK', KEYS[1], 1, 0)
local lowest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or '0'
local kept = {}
if KEYS[3] and redis.call('TYPE', KEYS[3]).ok == 'stream' then
  local to = '+'
  in_portions(1000, tonumber(ARGV[1]), function(_, want)
    local raws = {}
    for i, entry in ipairs(redis.call('XREVRANGE', KEYS[3], to, '-', 'COUNT', want)) do
      raws[i], to = entry[2][2], '(' .. entry[1]
      kept[raws[i]] = true
    end
    return raws, 1
  end)
end
local back = {}
for i = 2, #ARGV, 2 do
  if not kept[ARGV[i + 1]] then
    back[#back + 1] = ARGV[i] == '' and lowest or ARGV[i]
    back[#back + 1] = ARGV[i + 1]
  end
end
if #back == 0 then return 0 end
return redis.call('ZADD', KEYS[1], 'NX', unpack(back))

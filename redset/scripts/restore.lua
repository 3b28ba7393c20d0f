-- Puts members back that were taken and could not be decoded, where no dead letters can be kept.
-- The removal of nothing is there for a full server, which lets a script write on after it.
-- What is among the newest dead letters was kept after all: its step's answer was lost.
-- KEYS: queue, none, dead (where there can be dead letters)
-- ARGV: score ('' where it is not known: the lowest that there is, else 0), member, ...
redis.call('ZREMRANGEBYRANK', KEYS[1], 1, 0)
local lowest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or '0'
local kept = {}
if KEYS[3] and redis.call('TYPE', KEYS[3]).ok == 'stream' then
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1000)) do
    kept[entry[2][2]] = true
  end
end
local back = {}
for i = 1, #ARGV, 2 do
  if not kept[ARGV[i + 1]] then
    back[#back + 1] = ARGV[i] == '' and lowest or ARGV[i]
    back[#back + 1] = ARGV[i + 1]
  end
end
if #back == 0 then return 0 end
return redis.call('ZADD', KEYS[1], 'NX', unpack(back))

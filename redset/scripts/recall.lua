-- Returns what some buckets of a memory forever hold.
-- KEYS: meta, none, seen
-- ARGV: epoch, first bucket, how many
-- Returns {the next bucket, or 0 after the last one; the integers}
local meta, seen = KEYS[1], KEYS[3]
local m = redis.call('HMGET', meta, 'epoch', 'level', 'split')
local first = tonumber(ARGV[2])
if m[1] ~= ARGV[1] then return {0, {}} end
local buckets = 2 ^ (tonumber(m[2]) or 0) + (tonumber(m[3]) or 0)
local stop = math.min(first + tonumber(ARGV[3]), buckets)
local found = {}
for bucket = first, stop - 1 do
  local name = seen .. ':' .. m[1] .. ':' .. string.format('%d', bucket)
  for _, integer in ipairs(redis.call('SMEMBERS', name)) do found[#found + 1] = integer end
end
return {stop < buckets and stop or 0, found}

-- Returns the integers in some buckets of a memory without a time limit.
-- KEYS: meta, none, seen
-- ARGV:
--   epoch
--   bucket: number  the first bucket
--   num: number     number of buckets
-- Returns {the next bucket, or 0 after the last one; the integers}
local m = redis.call('HMGET', meta, 'epoch', 'level', 'split')
if m[1] ~= epoch then return {0, {}} end
local buckets = 2 ^ (tonumber(m[2]) or 0) + (tonumber(m[3]) or 0)
local stop = math.min(bucket + num, buckets)
local found = {}
for each = bucket, stop - 1 do
  local name = seen .. ':' .. epoch .. ':' .. string.format('%d', each)
  for _, integer in ipairs(redis.call('SMEMBERS', name)) do found[#found + 1] = integer end
end
return {stop < buckets and stop or 0, found}

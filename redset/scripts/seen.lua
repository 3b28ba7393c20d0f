-- Returns for each item whether it is remembered, as a string of 0 and 1.
-- KEYS: meta, none, seen
-- ARGV:
--   remember, epoch
--   tokens...        one per item, as the memory stores it
-- Returns the string, or {'EPOCH', the set's}
-- include: due
-- include: buckets
local stored = redis.call('HGET', meta, 'epoch') or ''
if stored ~= epoch then return {'EPOCH', stored} end
local known = {}
if remember == 'limited' then
  local now = milliseconds(redis.call('TIME'))
  for i, expiry in ipairs(redis.call('ZMSCORE', seen, unpack(ARGV, tokens_at))) do
    known[i] = expiry and tonumber(expiry) > now and 1 or 0
  end
else
  local memory = memory_of(meta, seen, epoch)
  for i = tokens_at, #ARGV do
    known[#known + 1] = redis.call('SISMEMBER', bucket_of(memory, ARGV[i]), ARGV[i])
  end
end
return table.concat(known)

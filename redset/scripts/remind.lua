-- Puts back what an exported set remembered.
-- KEYS: meta, none, seen
-- ARGV: epoch, remember, then integers, or of a limited memory: expiry in ms, digest, ...
-- Returns 1, or 0 where the set has another epoch
-- include: check
-- include: buckets
local meta, seen, epoch = KEYS[1], KEYS[3], ARGV[1]
if call('HGET', meta, 'epoch') ~= epoch then return 0 end
if ARGV[2] == 'limited' then
  call('ZADD', seen, unpack(ARGV, 3))
  return 1
end
local memory = memory_of(meta, seen, epoch)
for i = 3, #ARGV do
  memory.count = memory.count + call('SADD', bucket_of(memory, ARGV[i]), ARGV[i])
end
grow(memory)
save(meta, memory)
return 1

-- Puts back what an exported set remembered.
-- KEYS: meta, none, seen
-- ARGV: what is restored, the number of this step, epoch, remember, then integers, or of a limited
--   memory: expiry in ms, digest, ...
-- Returns how many items this restore queued; -1 if the set was cleared meanwhile
-- include: check
-- include: buckets
-- include: restoring
local meta, seen, epoch = KEYS[1], KEYS[3], ARGV[3]
local id, done, queued = progress(meta)
if id ~= ARGV[1] or call('HGET', meta, 'epoch') ~= epoch then return -1 end
if done >= tonumber(ARGV[2]) then return queued end
if ARGV[4] == 'limited' then
  for from = 5, #ARGV, 4000 do
    call('ZADD', seen, unpack(ARGV, from, math.min(from + 3999, #ARGV)))
  end
else
  -- There are buckets enough, made when this began: nothing is split.
  local memory = memory_of(meta, seen, epoch)
  for i = 5, #ARGV do
    memory.count = memory.count + call('SADD', bucket_of(memory, ARGV[i]), ARGV[i])
  end
  save(meta, memory)
end
note(meta, ARGV[1], ARGV[2], queued)
return queued

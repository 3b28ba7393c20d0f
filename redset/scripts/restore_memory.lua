-- Restores the memory of an exported set.
-- KEYS: meta, none, seen
-- ARGV:
--   id               of the restored lines
--   number: number   of this step
--   epoch, remember
--   known...         integers; for a limited memory: expiry in ms, digest, ...
-- Returns the number of items that this restore queued; -1 if the set was cleared since
-- include: check
-- include: buckets
-- include: restoring
-- Expiries and digests of a ZADD: fewer than Lua unpacks.
local PART = 4000
local restored, done, queued = progress(meta)
if restored ~= id or call('HGET', meta, 'epoch') ~= epoch then return -1 end
if done >= number then return queued end
if remember == 'limited' then
  for from = known_at, #ARGV, PART do
    call('ZADD', seen, unpack(ARGV, from, math.min(from + PART - 1, #ARGV)))
  end
else
  -- All buckets were made when the restore began: none is split.
  local memory = memory_of(meta, seen, epoch)
  for i = known_at, #ARGV do
    memory.count = memory.count + call('SADD', bucket_of(memory, ARGV[i]), ARGV[i])
  end
  save(meta, memory)
end
note(meta, id, number, queued)
return queued

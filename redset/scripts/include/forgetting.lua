-- Included by steps that forget, after due and buckets, which have the set's key `none`: takes what is remembered out of the memory;
-- how many it held.
-- The count of such steps tells processes whose tables of known duplicates hold the past.
local function forget(remember, meta, seen, epoch, tokens)
  if #tokens == 0 then return 0 end
  local gone = 0
  if remember == 'limited' then
    local now = milliseconds(redis.call('TIME'))
    local counted = {}
    for i, expiry in ipairs(redis.call('ZMSCORE', seen, unpack(tokens))) do
      if expiry and tonumber(expiry) > now and not counted[tokens[i]] then
        counted[tokens[i]] = true
        gone = gone + 1
      end
    end
    redis.call('ZREM', seen, unpack(tokens))
    if gone > 0 then redis.call('HINCRBY', meta, 'forgets', 1) end
    return gone
  end
  local memory = memory_of(meta, seen, epoch)
  for _, integer in ipairs(tokens) do
    gone = gone + redis.call('SREM', bucket_of(memory, integer), integer)
  end
  if gone > 0 then
    memory.count = memory.count - gone
    save(meta, memory)
    redis.call('HINCRBY', meta, 'forgets', 1)
  end
  return gone
end
-- Writes of nothing: who may not forget, or write the meta, is refused before anything is forgotten.
-- The removal is first, so that a full server takes the rest.
local function try_to_forget(remember, meta, none)
  redis.call(remember == 'limited' and 'ZREM' or 'SREM', none, '')
  redis.call('HINCRBY', meta, 'forgets', 0)
end
-- Nil if the step may go on, else what to tell the caller.
local function other_epoch(meta, epoch)
  local stored = redis.call('HGET', meta, 'epoch') or ''
  if stored ~= epoch then return {'EPOCH', stored} end
end

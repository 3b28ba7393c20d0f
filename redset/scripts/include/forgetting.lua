-- Included by steps that forget, after due and buckets. They have the set's key `none`. Removes
-- items from the memory, and returns the number that it had. The count of such steps shows other
-- processes that their known tables are out of date.
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
-- Writes of nothing: a user who may not forget, or write the meta, is refused before anything is
-- forgotten. The removal is first, so that a full server accepts the rest.
local function try_to_forget(remember, meta, none)
  redis.call(remember == 'limited' and 'ZREM' or 'SREM', none, '')
  redis.call('HINCRBY', meta, 'forgets', 0)
end
-- Returns nil if the step may go on, else the reply for the caller.
local function other_epoch(meta, epoch)
  local stored = redis.call('HGET', meta, 'epoch') or ''
  if stored ~= epoch then return {'EPOCH', stored} end
end

-- Counts everything in one step.
-- KEYS: queue, then with second keys: dead, meta, seen, items
-- ARGV: whether only what is due is available, remember
-- Returns {size, available, dead, remembered, lowest score or '', time in seconds, bytes}
-- include: due
local queue, dead, meta, seen, items = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local now = due_until()
-- Not every user may ask, and not every server says.
local function bytes(key)
  local used = redis.pcall('MEMORY', 'USAGE', key)
  return type(used) == 'number' and used or 0
end
local size = redis.call('ZCARD', queue)
local available = ARGV[1] == '1' and redis.call('ZCOUNT', queue, '-inf', now) or size
local lowest = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')[2] or ''
local memory, letters, remembered = bytes(queue), 0, 0
if dead then
  letters = redis.call('XLEN', dead)
  memory = memory + bytes(dead) + bytes(meta) + bytes(items)
  if ARGV[2] == 'limited' then
    remembered = redis.call('ZCOUNT', seen, '(' .. string.format('%.0f', math.floor(now * 1000)), '+inf')
    memory = memory + bytes(seen)
  elseif ARGV[2] == 'ever' then
    local m = redis.call('HMGET', meta, 'count', 'level', 'split', 'epoch')
    remembered = tonumber(m[1]) or 0
    if m[2] then
      local buckets = 2 ^ tonumber(m[2]) + tonumber(m[3])
      local samples, sum = math.min(buckets, 20), 0
      for i = 0, samples - 1 do
        local bucket = string.format('%d', math.floor(i * buckets / samples))
        sum = sum + bytes(seen .. ':' .. m[4] .. ':' .. bucket)
      end
      memory = memory + sum / samples * buckets
    end
  end
end
return {size, available, letters, remembered, lowest, now, math.floor(memory)}

-- Included by steps that use a memory without a time limit: sets of integers, one for each bucket.
-- Theory of operation: linear hashing (Litwin 1980). There are 2^level + split buckets, and they
-- double split by split. So no step moves more than a few hundred integers, and nearly all sets
-- stay compact.
local FILL = 180
local function memory_from(level, split, count, seen, epoch)
  level = tonumber(level) or 0
  return {
    level = level, split = tonumber(split) or 0, count = tonumber(count) or 0,
    size = 2 ^ level, prefix = seen .. ':' .. epoch .. ':',
  }
end
local function memory_of(meta, seen, epoch)
  local m = redis.call('HMGET', meta, 'level', 'split', 'count')
  return memory_from(m[1], m[2], m[3], seen, epoch)
end
-- The last nine digits choose the bucket: Lua's numbers do not hold 64 bits. To add 0 makes a number
-- in half of the time of tonumber, and format makes the text of an integer faster than the server.
local sub, format = string.sub, string.format
local function bucket_of(memory, integer)
  local low = sub(integer, -9) + 0
  if low < 0 then low = -low end
  local bucket = low % memory.size
  if bucket < memory.split then bucket = low % (memory.size * 2) end
  return memory.prefix .. format('%d', bucket)
end
-- Splits buckets while they are too full, and returns how many.
local function grow(memory)
  local splits = 0
  while memory.count > (memory.size + memory.split) * FILL and splits < 6 do
    local from = memory.prefix .. format('%d', memory.split)
    local to = memory.prefix .. format('%d', memory.split + memory.size)
    local moved, size, rest = {}, memory.size * 2, memory.split
    for _, integer in ipairs(redis.call('SMEMBERS', from)) do
      local low = sub(integer, -9) + 0
      if low < 0 then low = -low end
      if low % size ~= rest then moved[#moved + 1] = integer end
    end
    -- Added before they are removed: a step that is refused in between forgets nothing.
    for _, command in ipairs({'SADD', 'SREM'}) do
      for i = 1, #moved, 4000 do
        local last = math.min(i + 3999, #moved)
        redis.call(command, command == 'SADD' and to or from, unpack(moved, i, last))
      end
    end
    memory.split = memory.split + 1
    splits = splits + 1
    if memory.split == memory.size then
      memory.level = memory.level + 1
      memory.size = memory.size * 2
      memory.split = 0
    end
  end
  return splits
end
local function save(meta, memory)
  redis.call('HSET', meta, 'level', format('%d', memory.level),
    'split', format('%d', memory.split), 'count', format('%d', memory.count))
end

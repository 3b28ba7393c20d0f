-- Adds a chunk of items and says what became of each, as if they had been added one by one.
-- KEYS: queue, meta, seen, items, name (the last four where the set has a key= or remember=)
-- ARGV: condition ('', nx, xx, lt, gt, xxlt, xxgt), again, outcomes wanted, largest size, keyed,
--   remember ('', ever, limited), its length in ms, epoch, whether the epoch is the caller's
--   proposal, options; then entries: score, member, [payload], [what is remembered]
-- Returns {added, updated, outcomes}, or {'EPOCH', the set's}, {'OPTIONS', the set's},
--   {'NAME'}, {'FULL', size}
-- include: check
-- include: buckets
-- include: drop
local HEAD = 10
local queue, meta, seen, items, name = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local condition, again, wanted, limit = ARGV[1], ARGV[2] == '1', ARGV[3] == '1', tonumber(ARGV[4])
local keyed, remember, length = ARGV[5] == '1', ARGV[6], ARGV[7]
local epoch, proposed, options = ARGV[8], ARGV[9] == '1', ARGV[10]
local ever, limited = remember == 'ever', remember == 'limited'

-- What could refuse the step is asked before its first write.
if wrong_type(queue, 'zset') then return redis.error_reply(WRONG_TYPE) end
local stored = {}
if meta then
  if wrong_type(meta, 'hash') or (keyed and wrong_type(items, 'hash'))
    or (limited and wrong_type(seen, 'zset')) then
    return redis.error_reply(WRONG_TYPE)
  end
  stored = call('HMGET', meta, 'options', 'epoch', 'old')
  if stored[1] and stored[1] ~= options then return {'OPTIONS', stored[1]} end
  if keyed and call('EXISTS', name) == 1 then return {'NAME'} end
  if remember ~= '' and stored[2] ~= epoch and (stored[2] or not proposed) then
    return {'EPOCH', stored[2] or ''}
  end
end

local width = keyed and 3 or 2
local memory_at
if ever or (limited and not keyed) then width = width + 1 memory_at = width end
local n = (#ARGV - HEAD) / width

local zadd, hset = {}, {}
local added, updated, outcomes = 0, 0, {}
local memory, new = nil, 0

local function columns(first, list)
  local found = {}
  for i = 1, list and #list or n do
    found[i] = ARGV[HEAD + ((list and list[i] or i) - 1) * width + first]
  end
  return found
end
local function lookup(command, key, values)
  local found = {}
  for from = 1, #values, 4000 do
    local part = call(command, key, unpack(values, from, math.min(from + 3999, #values)))
    for i = 1, #part do found[from + i - 1] = part[i] end
  end
  return found
end
local function accept(at)
  zadd[#zadd + 1] = ARGV[at + 1]
  zadd[#zadd + 1] = ARGV[at + 2]
  if keyed then
    hset[#hset + 1] = ARGV[at + 2]
    hset[#hset + 1] = ARGV[at + 3]
  end
end

if ever then memory = memory_of(meta, seen, epoch) end
if ever and condition == '' and not again and not limit then
  -- The short way: an item that the memory takes is new or updated, any other is refused.
  local fresh, names = {}, {}
  local size, split, prefix = memory.size, memory.split, memory.prefix
  for i = 1, n do
    -- As bucket_of, written out, and each name made once: it saves a fifth.
    local integer = ARGV[HEAD + (i - 1) * width + memory_at]
    local low = tonumber(sub(integer, -9))
    if low < 0 then low = -low end
    local bucket = low % size
    if bucket < split then bucket = low % (size * 2) end
    local key = names[bucket]
    if not key then
      key = format('%s%d', prefix, bucket)
      names[bucket] = key
    end
    if call('SADD', key, integer) == 1 then
      new = new + 1
      fresh[new] = i
    end
    if wanted then outcomes[i] = 'r' end
  end
  local scores = lookup('ZMSCORE', queue, columns(2, fresh))
  for k = 1, new do
    accept(HEAD + (fresh[k] - 1) * width)
    if not scores[k] then added = added + 1 end
    if wanted then outcomes[fresh[k]] = scores[k] and 'u' or 'a' end
  end
  updated = new - added
else
  local members = columns(2)
  local scores = lookup('ZMSCORE', queue, members)
  local tokens, expiries, now
  if ever then
    tokens = columns(memory_at)
  elseif limited then
    local clock = call('TIME')
    now = clock[1] * 1000 + math.floor(clock[2] / 1000)
    tokens = memory_at and columns(memory_at) or members
    expiries = lookup('ZMSCORE', seen, tokens)
  end
  -- What this chunk itself has changed: an item may stand in it twice.
  local queued, fresh, learn = {}, {}, {}
  local function known(i)
    if again or remember == '' then return false end
    if fresh[members[i]] then return true end
    if ever then return call('SISMEMBER', bucket_of(memory, tokens[i]), tokens[i]) == 1 end
    return expiries[i] and tonumber(expiries[i]) > now
  end
  for i = 1, n do
    local at = HEAD + (i - 1) * width
    local member = members[i]
    local current = queued[member]
    if current == nil then current = scores[i] and tonumber(scores[i]) or false end
    local outcome, is_known = 'r', nil
    if not current then
      if condition == '' or condition == 'nx' or condition == 'lt' or condition == 'gt' then
        is_known = known(i)
        if not is_known then outcome = 'a' end
      end
    elseif condition == '' then
      is_known = known(i)
      if not is_known then outcome = 'u' end
    elseif condition ~= 'nx' then
      local number = tonumber(ARGV[at + 1])
      if (condition == 'xx' and number ~= current)
        or ((condition == 'lt' or condition == 'xxlt') and number < current)
        or ((condition == 'gt' or condition == 'xxgt') and number > current) then
        outcome = 'u'
        is_known = known(i)
      end
    end
    if outcome ~= 'r' then
      accept(at)
      queued[member] = tonumber(ARGV[at + 1])
      if remember ~= '' and not is_known then
        learn[#learn + 1] = tokens[i]
        fresh[member] = true
      end
      if outcome == 'a' then added = added + 1 else updated = updated + 1 end
    end
    if wanted then outcomes[i] = outcome end
  end
  if limit and added > 0 then
    local size = call('ZCARD', queue)
    if size + added > limit then return {'FULL', size} end
  end
  if ever then
    for i = 1, #learn do
      new = new + call('SADD', bucket_of(memory, learn[i]), learn[i])
    end
  elseif limited then
    local expiry, args = string.format('%d', now + length), {}
    for i = 1, #learn do
      args[2 * i - 1] = expiry
      args[2 * i] = learn[i]
    end
    for from = 1, #args, 4000 do
      call('ZADD', seen, unpack(args, from, math.min(from + 3999, #args)))
    end
    if #learn > 0 then
      local over = math.min(call('ZCOUNT', seen, '-inf', now), 2 * n + 100)
      if over > 0 then call('ZREMRANGEBYRANK', seen, 0, over - 1) end
    end
  end
end

for from = 1, #zadd, 4000 do
  call('ZADD', queue, unpack(zadd, from, math.min(from + 3999, #zadd)))
end
for from = 1, #hset, 4000 do
  call('HSET', items, unpack(hset, from, math.min(from + 3999, #hset)))
end
if meta and #zadd > 0 and not stored[1] then
  call('HSET', meta, 'layout', 1, 'options', options)
  if remember ~= '' then call('HSET', meta, 'epoch', epoch) end
end
if new > 0 then
  memory.count = memory.count + new
  grow(memory)
  save(meta, memory)
end
if stored[3] then drop(meta, seen, 50) end
return {added, updated, table.concat(outcomes)}

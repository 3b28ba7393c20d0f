-- Counts everything in one step.
-- ungrouped:
-- KEYS: queue; with second keys none, leased, leases, calls, dead, counts, meta, seen, items
-- grouped:
-- KEYS: queue, none, leased, leases, calls, dead, counts, meta, seen, items, ready, resting, waiting, working, limits, shared, index
-- both:
-- ARGV:
--   due: flag             only items that are due are available
--   remember              '', ever, limited
--   keyed: flag
--   max_attempts: number
--   limit: number         limit of expired leases to return
--   first: number         number of them to read at first
--   looks: flag           only reads: expired leases then count as returned
-- grouped:
--   @grouping
-- both:
-- Returns {size, available, leased, dead, remembered, lowest score or '', time in seconds, bytes,
--   number of new dead letters, number that wait for a retry}; of a set with groups also the numbers
--   of groups that may start, that rest, and that have items in work, and the first is also available
-- include: check
-- include: counting
-- include: due
local all_items = items
if not keyed then items = nil end
-- include: leases
-- grouped:
-- include: grouping
-- include: counting_groups
-- both:
-- include: portions
-- include: expiring
local clock = call('TIME')
local now = due_until(clock)
local died, _ = 0, nil
if leased and not looks then _, died = expire(milliseconds(clock), limit, first) end
-- Not every user may use MEMORY USAGE, and not every server has it.
local function bytes(key)
  local used = redis.pcall('MEMORY', 'USAGE', key)
  return type(used) == 'number' and used or 0
end
-- Counts the items that failed and wait out a delay. Only the record distinguishes a delay from a
-- lease. Of more than SAMPLE records, or of large members, some are read, at even distances.
local SAMPLE = 250
local function count_retrying(milli)
  local over = call('ZCOUNT', leased, '-inf', milli)
  local n = call('ZCARD', leased) - over
  if n == 0 or call('EXISTS', leases) == 0 then return 0 end
  local members = {}
  local function read(many)
    members = {}
    if many >= n then
      members = call('ZRANGE', leased, over, -1)
    else
      for i = 1, many do
        local rank = over + math.floor((i - 0.5) * n / many)
        members[i] = call('ZRANGE', leased, rank, rank)[1]
      end
    end
  end
  read(8)
  local length = 0
  for i = 1, #members do length = length + #members[i] end
  if n > 8 then
    read(math.max(8, math.min(SAMPLE, math.floor(BYTES * #members / math.max(length, 1)))))
  end
  local found = 0
  for _, value in ipairs(values_of(members)) do
    if value and owner_of(value) == DELAYED and tried(parse(value)) > 0 then found = found + 1 end
  end
  return math.floor(found * n / #members + 0.5)
end
-- grouped:
-- Estimates the memory of the indexes by those of a few groups that may start.
local function bytes_of_indexes()
  local some, sum, entries = call('ZRANGE', ready, '0', '19'), 0, 0
  for _, group in ipairs(some) do
    sum = sum + bytes(index_of .. group)
    entries = entries + call('ZCARD', index_of .. group)
  end
  return entries > 0 and sum / entries * call('ZCARD', queue) or 0
end
-- both:
local size = call('ZCARD', queue)
local available = due and call('ZCOUNT', queue, '-inf', now) or size
local lowest = call('ZRANGE', queue, 0, 0, 'WITHSCORES')[2] or ''
local memory, held, letters, remembered, retrying = bytes(queue), 0, 0, 0, 0
-- grouped:
-- With the expired leases returned, so many groups more may start, and so many less have items in work.
local startable, idle = 0, 0
-- both:
if dead then
  held = call('ZCARD', leased)
  letters = call('XLEN', dead)
  retrying = count_retrying(milliseconds(clock))
  if looks then
-- include: looking
    local until_score = due and tonumber(now) or math.huge
    local milli = milliseconds(clock)
    local over, would_die, queued, on_time, least = look_at_expired(milli, first, until_score)
    held, letters = held - over, letters + would_die
    size, available = size + queued, available + on_time
    if least and (lowest == '' or tonumber(least) < tonumber(lowest)) then lowest = least end
-- grouped:
    for group, ended in pairs(ended_of) do
      local slots, rests = call('HGET', working, group), call('ZSCORE', resting, group)
      local left, most = slots and #slots / 16 - ended or 0, limits_of({group})[1]
      if slots and left <= 0 then idle = idle + 1 end
      if (most == 0 or left < most) and not (rests and rests + 0 > milli)
        and not call('ZSCORE', ready, group)
        and (returned_to[group] or call('EXISTS', index_of .. group) == 1) then
        startable = startable + 1
      end
    end
-- both:
  end
  for _, key in ipairs({leased, leases, calls, dead, meta, all_items}) do
    memory = memory + bytes(key)
  end
-- grouped:
  for _, key in ipairs({ready, resting, waiting, working, limits}) do memory = memory + bytes(key) end
  memory = memory + bytes_of_indexes()
-- both:
  if remember == 'limited' then
    remembered = call('ZCOUNT', seen, '(' .. string.format('%.0f', math.floor(now * 1000)), '+inf')
    memory = memory + bytes(seen)
  elseif remember == 'ever' then
    local m = call('HMGET', meta, 'count', 'level', 'split', 'epoch')
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
-- ungrouped:
return {size, available, held, letters, remembered, lowest, now, math.floor(memory), died,
  retrying}
-- grouped:
local may, rest, work =
  count_groups(ready, resting, waiting, working, index_of, milliseconds(clock))
-- A group in line may have lost its items to a discard.
return {size, math.min(size, may + startable), held, letters, remembered, lowest, now, math.floor(memory), died,
  retrying, may + startable, rest, work - idle}
-- both:

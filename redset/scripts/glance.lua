-- Counts several sets. It only reads, so that it works on replicas and for users who may only read.
-- Its keys are, of each set, the queue; with second keys also paused, leased, dead, meta, seen,
-- counts, workers; with groups then ready, resting, waiting, working, index.
-- ARGV:
--   sets...(due, more)  whether only items that are due are available, '1' or '', and the number of
--     keys after the queue: 0, 7, or with groups 12
-- Returns {time in s, microseconds, a row of each set}. A row has the size, available items, leases,
-- leases past their time, the first expiry in ms or '', dead letters, remembered items, the lowest
-- score or '', the text of a pause or '', workers heard of lately, {field, count, ...}, and the groups
-- that are ready, that rest, and that have items in work. The row of a key of another type is an
-- error's text.
-- include: due
local clock = redis.call('TIME')
local now, milli = due_until(clock), milliseconds(clock)
-- The lines of workers that are read, and the seconds after which a worker is not counted.
local LINES, SILENT = 64, 90
local function workers_in(key)
  local num = redis.call('HLEN', key)
  if num == 0 or num > LINES then return num end
  local heard = 0
  for _, line in ipairs(redis.call('HVALS', key)) do
    local at = tonumber(string.match(line, '"seen":(%d+)') or '0')
    if at >= tonumber(clock[1]) - SILENT then heard = heard + 1 end
  end
  return heard
end
-- include: counting_groups
local function look(at, due, more)
  local queue = KEYS[at]
  local size = redis.call('ZCARD', queue)
  local row = {size, due and redis.call('ZCOUNT', queue, '-inf', now) or size, 0, 0, '', 0, 0,
    redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')[2] or '', '', 0, {}, 0, 0, 0}
  if more > 0 then
    local paused, leased, dead = KEYS[at + 1], KEYS[at + 2], KEYS[at + 3]
    local meta, seen, counts, workers = KEYS[at + 4], KEYS[at + 5], KEYS[at + 6], KEYS[at + 7]
    row[3] = redis.call('ZCARD', leased)
    if row[3] > 0 then
      row[4] = redis.call('ZCOUNT', leased, '-inf', string.format('%.0f', milli))
      row[5] = redis.call('ZRANGE', leased, 0, 0, 'WITHSCORES')[2]
    end
    row[6] = redis.call('XLEN', dead)
    row[7] = tonumber(redis.call('HGET', meta, 'count') or '0')
      + redis.call('ZCOUNT', seen, '(' .. string.format('%.0f', milli), '+inf')
    row[9] = redis.call('GET', paused) or ''
    row[10] = workers_in(workers)
    row[11] = redis.call('HGETALL', counts)
  end
  if more > 7 then
    local epoch = redis.call('HGET', KEYS[at + 4], 'groups') or '0'
    row[12], row[13], row[14] = count_groups(KEYS[at + 8], KEYS[at + 9], KEYS[at + 10], KEYS[at + 11],
      KEYS[at + 12] .. ':' .. epoch .. ':', milli)
    -- A group in line may have lost its items to a discard.
    row[2] = math.min(size, row[12])
  end
  return row
end
local rows, at = {}, 1
for i = sets_at, #ARGV, sets_width do
  -- fields: sets at i
  local is_read, row = pcall(look, at, due == '1', tonumber(more))
  if not is_read then
    row = type(row) == 'table' and row.err or tostring(row)
    -- Any other error, such as of a user without the right to ZCARD, is the answer of the step.
    if not string.find(row, 'WRONGTYPE', 1, true) then return redis.error_reply(row) end
  end
  rows[#rows + 1] = row
  at = at + 1 + more
end
return {clock[1], clock[2], rows}

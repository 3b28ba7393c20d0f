-- Begins to restore a set, which must be empty, or goes on if a restore of the same was cut off.
-- KEYS: queue; with second keys none, name, leased, dead, meta, seen
-- ARGV:
--   options             '' if there is no meta
--   epoch               '' if nothing is remembered
--   sequence: optional  with ties= what number its next item gets
--   forgets             from what number forgetting is counted
--   id                  what is restored
--   integers: number    how many are remembered forever
-- Returns {1 where it was empty, 2 where buckets of a cleared memory are left, 3 where another
--   restore was cut off, else 0; the epoch; how many steps are done, how many items they queued}
-- include: check
-- include: buckets
-- include: restoring
if meta then
  if wrong_type(meta, 'hash') then return redis.error_reply(WRONG_TYPE) end
  local other, done, queued = progress(meta)
  if other == id then return {1, call('HGET', meta, 'epoch') or '', done, queued} end
  if other then return {3, '', 0, 0} end
end
for _, key in ipairs(name and {queue, name, leased, dead, seen} or {queue}) do
  if call('EXISTS', key) == 1 then return {0, '', 0, 0} end
end
if meta then
  local stored = call('HMGET', meta, 'options', 'epoch', 'old')
  -- One with a memory is not empty; one that was drained has the options that it had.
  if stored[1] and (stored[1] ~= options or stored[2]) then return {0, '', 0, 0} end
  if stored[3] then return {2, '', 0, 0} end
  local fields = {'restoring', id .. ' 0 0'}
  local function add(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if options ~= '' then
    add('layout', 1)
    add('options', options)
  end
  if epoch ~= '' then
    add('epoch', epoch)
    add('forgets', forgets)
  end
  if sequence then add('sequence', sequence) end
  if integers > 0 then
    -- All buckets from the start: integers come in the order of other buckets, and those that are
    -- there at some moment need not be spread over fewer.
    local buckets, level = math.ceil(integers / FILL), 0
    while 2 ^ (level + 1) <= buckets do level = level + 1 end
    add('level', level)
    add('split', string.format('%d', buckets - 2 ^ level))
    add('count', 0)
  end
  call('HSET', meta, unpack(fields))
end
return {1, epoch, 0, 0}

-- Begins to restore an empty set, or continues a restore of the same lines that was cut off.
-- KEYS: queue; with second keys none, name, leased, dead, meta, seen
-- ARGV:
--   options             '' without a meta
--   epoch               '' if nothing is remembered
--   sequence: optional  with ties= the number of its next item
--   forgets             the number at which the count of forgets begins
--   id                  of the restored lines
--   integers: number    number of items that are remembered forever
-- Returns {1 if it was empty, 2 if buckets of a cleared memory are left, 3 if another restore was
--   cut off, else 0; the epoch; number of steps that are done, number of items that they queued}
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
  -- A set with a memory is not empty. A drained set keeps its options.
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
    -- All buckets from the start: integers come in the order of other buckets, so those that are
    -- restored so far may fill few buckets.
    local buckets, level = math.ceil(integers / FILL), 0
    while 2 ^ (level + 1) <= buckets do level = level + 1 end
    add('level', level)
    add('split', string.format('%d', buckets - 2 ^ level))
    add('count', 0)
  end
  call('HSET', meta, unpack(fields))
end
return {1, epoch, 0, 0}

-- Begins to restore a set: it must be empty.
-- KEYS: queue, then with second keys: none, name, leased, dead, meta, seen
-- ARGV: options ('' where there is no meta), epoch ('' where nothing is remembered), with ties= what
--   number its next item gets, else '', from what number forgetting is counted
-- Returns 1 where it was empty, 2 where buckets of a cleared memory are left, else 0
-- include: check
local queue, none, name, leased, dead, meta, seen = unpack(KEYS)
if call('EXISTS', queue) == 1 then return 0 end
if name then
  for _, key in ipairs({name, leased, dead, seen}) do
    if call('EXISTS', key) == 1 then return 0 end
  end
end
if meta then
  if wrong_type(meta, 'hash') then return redis.error_reply(WRONG_TYPE) end
  local stored = call('HMGET', meta, 'options', 'epoch', 'old')
  -- One with a memory is not empty; one that was drained has the options that it had.
  if stored[1] and (stored[1] ~= ARGV[1] or stored[2]) then return 0 end
  if stored[3] then return 2 end
  if ARGV[1] ~= '' then call('HSET', meta, 'layout', 1, 'options', ARGV[1]) end
  if ARGV[2] ~= '' then call('HSET', meta, 'epoch', ARGV[2], 'forgets', ARGV[4]) end
  if ARGV[3] ~= '' then call('HSET', meta, 'sequence', ARGV[3]) end
end
return 1

-- Begins to restore a set: it must be empty.
-- KEYS: queue, name, then with second keys: leased, dead, meta, seen
-- ARGV: options ('' where there is no meta), epoch ('' where nothing is remembered), with ties= what
--   number its next item gets, else ''
-- Returns 1 where it was empty, else 0
-- include: check
local queue, name, leased, dead, meta, seen = unpack(KEYS)
for _, key in ipairs({queue, name, leased, dead, seen}) do
  if call('EXISTS', key) == 1 then return 0 end
end
if meta then
  if wrong_type(meta, 'hash') then return redis.error_reply(WRONG_TYPE) end
  if call('HEXISTS', meta, 'options') == 1 then return 0 end
  if ARGV[1] ~= '' then call('HSET', meta, 'layout', 1, 'options', ARGV[1]) end
  if ARGV[2] ~= '' then call('HSET', meta, 'epoch', ARGV[2]) end
  if ARGV[3] ~= '' then call('HSET', meta, 'sequence', ARGV[3]) end
end
return 1

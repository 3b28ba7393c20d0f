-- Identifies the memory, and checks that it still knows a sample. While both are unchanged, known
-- items stay known. All is read in one step, so growth, forgetting and expiry are not taken for a
-- loss.
-- KEYS: meta, none, seen
-- ARGV:
--   remember
--   epoch      '' without a sample
--   tokens...  of the items of the sample
-- Returns {epoch, count of forgets, run of the server, number of items that are remembered forever,
--   number of keys that the server has evicted (if it may evict any), number of the sample's items
--   that are not known}, each '' if it is missing. INFO may be refused, and then the run is
--   missing. A replica has none
-- include: check
-- include: due
-- include: buckets
if wrong_type(meta, 'hash') then return {'', '', '', '', '', '0'} end
local function info(section, pattern)
  local text = redis.pcall('INFO', section)
  return type(text) == 'string' and string.match(text, pattern) or ''
end
local found = call('HMGET', meta, 'epoch', 'forgets', 'count')
local run, history = info('server', 'run_id:(%w+)'), info('replication', 'master_replid:(%w+)')
if run == '' or info('replication', 'role:(%w+)') ~= 'master' then
  return {found[1] or '', '', '', '', '', '0'}
end
local missing = 0
if epoch ~= '' and found[1] == epoch and #ARGV >= tokens_at then
  if remember == 'limited' then
    local now = milliseconds(call('TIME'))
    for _, expiry in ipairs(call('ZMSCORE', seen, unpack(ARGV, tokens_at))) do
      if not expiry or tonumber(expiry) <= now then missing = missing + 1 end
    end
  else
    local memory = memory_of(meta, seen, epoch)
    for i = tokens_at, #ARGV do
      missing = missing + 1 - call('SISMEMBER', bucket_of(memory, ARGV[i]), ARGV[i])
    end
  end
end
-- A cache beside the set evicts keys of its own, which have a time to live.
local evicted = ''
if string.sub(info('memory', 'maxmemory_policy:(%S+)'), 1, 7) == 'allkeys' then
  evicted = info('stats', 'evicted_keys:(%d+)')
end
return {found[1] or '', found[2] or '', run .. history, found[3] or '', evicted, tostring(missing)}

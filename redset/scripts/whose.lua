-- Says whose memory this is: while that stays the same, what is known stays known.
-- KEYS: meta
-- Returns {epoch, how often something was forgotten, run of the server}, each '' where there is
--   none; a run cannot be seen where INFO is refused, and a replica has none
-- include: check
local meta = KEYS[1]
if wrong_type(meta, 'hash') then return {'', '', ''} end
local function info(section, pattern)
  local text = redis.pcall('INFO', section)
  return type(text) == 'string' and string.match(text, pattern) or ''
end
local found = redis.call('HMGET', meta, 'epoch', 'forgets')
local run, history = info('server', 'run_id:(%w+)'), info('replication', 'master_replid:(%w+)')
if run == '' or info('replication', 'role:(%w+)') ~= 'master' then return {found[1] or '', '', ''} end
return {found[1] or '', found[2] or '', run .. history}

-- Included by the steps of restore, after check. The field 'restoring' of the meta has the id of
-- the lines, the number of steps that are done, and the number of items that they queued. So a
-- repeated step does nothing.
local function progress(meta)
  local id, done, queued = string.match(call('HGET', meta, 'restoring') or '', '^(%x+) (%d+) (%d+)$')
  return id, tonumber(done), tonumber(queued)
end
local function note(meta, id, done, queued)
  call('HSET', meta, 'restoring', string.format('%s %d %d', id, done, queued))
end

-- Included by the steps of restore, after check. The meta has in restoring what is restored, how
-- many steps of it are done and how many items they queued. So a step that is sent again, or that a
-- restore repeats which was cut off, does nothing.
local function progress(meta)
  local id, done, queued = string.match(call('HGET', meta, 'restoring') or '', '^(%x+) (%d+) (%d+)$')
  return id, tonumber(done), tonumber(queued)
end
local function note(meta, id, done, queued)
  call('HSET', meta, 'restoring', string.format('%s %d %d', id, done, queued))
end

-- Restores own values of groups, those of groups that have none.
-- KEYS: limits, none, meta
-- ARGV:
--   id              of the restored lines
--   number: number  of this step
--   rows...(group, own)
-- Returns the number of items that this restore queued; -1 if the set was cleared since
-- include: check
-- include: restoring
local restored, done, queued = progress(meta)
if restored ~= id then return -1 end
if done >= number then return queued end
for i = rows_at, #ARGV, rows_width do
  -- fields: rows at i
  call('HSETNX', limits, group, own)
end
note(meta, id, number, queued)
return queued

-- Stores a group's own values, or deletes them.
-- KEYS: queue, none, items, leased, leases, meta, ready, resting, waiting, working, limits, shared, index
-- ARGV:
--   options
--   group
--   limit, interval  a number of items (0: any) and ms; '' for the set's
--   @grouping
-- Returns 1, or {'OPTIONS', the set's} if nothing was written
-- include: check
-- include: due
-- include: leases
-- include: grouping
local stored = call('HGET', meta, 'options')
if stored and stored ~= options then return {'OPTIONS', stored} end
if limit == '' and interval == '' then
  call('HDEL', limits, group)
else
  call('HSET', limits, group, (limit == '' and '-' or limit) .. ' ' .. (interval == '' and '-' or interval))
end
-- A higher limit may let it start.
line_up({group})
return 1

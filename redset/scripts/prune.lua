-- Deletes the records of items that were removed by a command, which leaves them. What is queued
-- again, or held back, keeps its record.
-- KEYS: queue, none, leases
-- ARGV:
--   members...
-- Returns how many were deleted
-- include: check
-- include: due
-- include: leases
local members, gone = ARGV, {}
for i, value in ipairs(values_of(members)) do
  if value and owner_of(value) == QUEUED and not call('ZSCORE', queue, members[i]) then
    gone[#gone + 1] = members[i]
  end
end
return bulk('HDEL', leases, gone)

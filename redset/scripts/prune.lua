-- Deletes the records of items that a command removed, which leaves records. Items that are queued
-- again or held keep their records.
-- KEYS: queue, none, leases
-- ARGV:
--   members...
-- Returns the number of deleted records
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

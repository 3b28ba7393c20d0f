-- Unlinks a bounded number of the indexes of a cleared set with groups.
-- KEYS: meta, none, index
-- ARGV:
--   limit: number  of indexes
-- Returns 1 if more are left
-- include: check
-- include: bytes
-- include: sweeping
return sweep_groups(limit) and 1 or 0

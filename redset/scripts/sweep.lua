-- Unlinks a bounded number of a cleared memory's buckets.
-- KEYS: meta, none, seen
-- ARGV:
--   limit: number  how many
-- Returns how many are left
-- include: drop
return drop(meta, seen, limit)

-- Unlinks a bounded number of a cleared memory's buckets.
-- KEYS: meta, none, seen
-- ARGV:
--   limit: number  of buckets
-- Returns the number of buckets that are left
-- include: drop
return drop(meta, seen, limit)

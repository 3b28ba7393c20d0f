-- Unlinks a bounded number of a cleared memory's buckets.
-- KEYS: meta, none, seen
-- ARGV: how many
-- Returns how many are left
-- include: drop
return drop(KEYS[1], KEYS[3], tonumber(ARGV[1]))

-- Adds a chunk of items and says what became of each.
-- KEYS: queue, then with second keys: none, leased, leases, meta, seen, items, name
-- ARGV: what `adding` says of heads and entries
-- Returns {added, updated, outcomes}, or why nothing was written
-- include: check
-- include: due
local queue, none, leased, leases, meta, seen, items, name = unpack(KEYS)
-- include: leases
-- include: buckets
-- include: drop
-- include: adding
return add(ARGV, 0)

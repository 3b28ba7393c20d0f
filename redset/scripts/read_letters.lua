-- Returns dead letters, oldest first.
-- KEYS: dead
-- ARGV: the first id, the last id, how many, how many to read at first
-- Returns {whether there may be more of so many, entries}
-- include: portions
-- include: entries
local entries, more =
  entries_of(KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
return {more and 1 or 0, entries}

-- Returns dead letters, oldest first.
-- KEYS: dead
-- ARGV:
--   lowest, highest  ids
--   num: number      how many
--   first: number    how many to read at first
-- Returns {whether there may be more of so many, entries}
-- include: portions
-- include: entries
local entries, more = entries_of(dead, lowest, highest, num, first)
return {more and 1 or 0, entries}

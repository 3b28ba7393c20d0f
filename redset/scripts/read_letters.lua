-- Returns dead letters, oldest first.
-- KEYS: dead
-- ARGV:
--   lowest, highest  ids
--   num: number      limit of letters
--   first: number    number to read at first
-- Returns {whether there may be more, entries}
-- include: portions
-- include: entries
local entries, more = entries_of(dead, lowest, highest, num, first)
return {more and 1 or 0, entries}

-- Deletes dead letters, oldest first.
-- KEYS: dead, none, counts
-- ARGV:
--   highest        the last id
--   num: number    limit of letters
--   first: number  number to read at first
-- Returns {number deleted, whether there may be more}
-- include: portions
-- include: entries
-- include: counting
local ids = {}
local entries, more = entries_of(dead, '-', highest, num, first)
for i = 1, #entries do ids[i] = entries[i][1] end
if #ids > 0 then
  redis.call('XDEL', dead, unpack(ids))
  count_event('purged', #ids)
end
if redis.call('XLEN', dead) == 0 then redis.call('UNLINK', dead) end
return {#ids, (more or #ids == num) and 1 or 0}

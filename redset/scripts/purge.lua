-- Deletes dead letters, oldest first.
-- KEYS: dead
-- ARGV: the last id, how many, how many to read at first
-- Returns {how many were deleted, whether there may be more}
-- include: portions
-- include: entries
local num, ids = tonumber(ARGV[2]), {}
local entries, more = entries_of(KEYS[1], '-', ARGV[1], num, tonumber(ARGV[3]))
for i = 1, #entries do ids[i] = entries[i][1] end
if #ids > 0 then redis.call('XDEL', KEYS[1], unpack(ids)) end
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('UNLINK', KEYS[1]) end
return {#ids, (more or #ids == num) and 1 or 0}

-- Holds the consumers of a set back.
-- KEYS: paused
-- ARGV:
--   text  JSON of who and why, without its opening brace
-- Returns the time of the pause, in seconds
local now = redis.call('TIME')[1]
redis.call('SET', paused, string.format('{"at":%d, ', now) .. text)
return now

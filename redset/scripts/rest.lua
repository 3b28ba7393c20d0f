-- Lets a group rest for a time, or longer if it does so already.
-- KEYS: none, ready, resting
-- ARGV:
--   group
--   time: number  in ms
-- Returns whether its rest is now longer
-- include: check
-- include: due
call('ZREM', none, '')
local ends = string.format('%.0f', milliseconds(call('TIME')) + time)
local longer = call('ZADD', resting, 'GT', 'CH', ends, group)
call('ZREM', ready, group)
return longer

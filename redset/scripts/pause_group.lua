-- Lets a group rest for a time, or ends its rest. Its interval still runs to its end.
-- KEYS: queue, none, items, leased, leases, meta, ready, resting, waiting, working, limits, shared, index
-- ARGV:
--   options
--   group
--   time: optional  of the rest in ms; 0 ends it, nil has no end
--   @grouping
-- Returns 1, or {'OPTIONS', the set's} if nothing was written
-- include: check
-- include: due
-- include: leases
-- include: grouping
local stored = call('HGET', meta, 'options')
if stored and stored ~= options then return {'OPTIONS', stored} end
local now = milliseconds(call('TIME'))
if time ~= '0' then
  -- A pause also holds for items without a group.
  call('ZADD', resting, 'GT', time and string.format('%.0f', now + time + 1) or '+inf', group)
  call('ZREM', ready, group)
  return 1
end
-- The end of the interval is not known from here on. It is at most an interval from now.
local rest = call('ZSCORE', resting, group)
local _, intervals = limits_of({group})
-- First, since it frees memory: a full server ends a pause, too.
call('ZREM', none, '')
if rest and rest + 0 > now + intervals[1] then
  if intervals[1] > 0 then
    call('ZADD', resting, string.format('%.0f', now + intervals[1] + 1), group)
  else
    call('ZREM', resting, group)
  end
end
line_up({group}, now)
return 1

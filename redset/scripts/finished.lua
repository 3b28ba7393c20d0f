-- Says whether nothing is queued, scheduled or held back.
-- KEYS: queue, none, leased, leases, calls, dead, items (with a key=)
-- ARGV: most attempts, how many expired leases to give back, how many to read at first
-- Returns {whether it is finished, how many were given back}
-- include: check
-- include: due
local queue, none, leased, leases, calls, dead, items = unpack(KEYS)
local max = tonumber(ARGV[1])
-- include: leases
-- include: portions
-- include: expiring
if items then call('HLEN', items) end
local now, limit = milliseconds(call('TIME')), tonumber(ARGV[2])
local back = expire(now, limit, tonumber(ARGV[3]))
if back == 0 then heal(now, limit) end
-- What a record alone tells of is given back, or the record is dropped, by this or the next calls.
return {call('EXISTS', leases) == 0 and call('ZCARD', queue) == 0 and call('ZCARD', leased) == 0 and 1 or 0, back}

-- Included by `add`, before the functions of its ways: nx on a plain set of which nothing is leased
-- or delayed. ZADD itself refuses what is queued, and is the only write. A short path: a step of one
-- item has half of the instructions that it has by `adding_absent`.
local last_of_short = entries_at + 4000
if condition == 'nx' and remember == '' and not (keyed or ties or wanted or max_size)
  and #ARGV < last_of_short and call('HLEN', leases) == 0 then
  return {call('ZADD', queue, 'NX', unpack(ARGV, entries_at)), 0, ''}
end

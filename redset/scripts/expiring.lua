-- Included by steps that give back what nobody holds any more, behind leases. They have what
-- finishing asks for, of which functions are made only where there is something to give back.
-- Gives back up to so many of those whose lease or delay is over; how many.
local function expire(now, limit)
  local members = call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', '0', limit)
  if #members == 0 then return 0 end
-- include: finishing
  call('ZCARD', queue)
  local values = values_of(members)
  for i = 1, #members do
    -- A stray one, which nothing of redset leaves, is not lost either.
    values[i] = values[i] or lease_value(DELAYED, 0, '0', '', '')
  end
  finish('expire', members, values, now, {0, '', '', ''})
  return #members
end

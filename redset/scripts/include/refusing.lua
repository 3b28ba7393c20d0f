-- Included by `add`, a piece of it for sets with options or a memory: ends the step if their meta
-- refuses it.
if keyed then call('HLEN', items) end
if limited then call('ZCARD', seen) end
-- ungrouped:
stored = call('HMGET', meta, 'options', 'epoch', 'old', 'level', 'split', 'count', 'sequence')
-- grouped:
stored = call('HMGET', meta, 'options', 'epoch', 'old', 'level', 'split', 'count', 'sequence', 'old_groups')
-- both:
if stored[1] and stored[1] ~= options then return {'OPTIONS', stored[1]} end
if (keyed or ties) and (call('EXISTS', name) == 1 or (holding and not stored[1])) then
  return {'NAME'}
end
if remember ~= '' and stored[2] ~= epoch and (stored[2] or not proposed) then
  return {'EPOCH', stored[2] or ''}
end
sequence = tonumber(stored[7]) or 0
first_number = sequence
if ties and sequence + num_entries > TIE then
  if holding or call('ZCARD', queue) > 0 then
    return redis.error_reply('ERR the numbers of ties= are used up: they begin again once nothing '
      .. 'is queued or leased')
  end
  sequence = 0
end

-- Queues dead letters again, at their scores, if no item of the same identity is queued or held.
-- ungrouped:
-- KEYS: dead, none, counts, queue, leased, leases, meta, items, name
-- grouped:
-- KEYS: dead, none, counts, queue, leased, leases, meta, items, name, ready, resting, waiting, working, limits, shared, index
-- both:
-- ARGV:
--   keyed: flag
--   options
--   ties: optional           fifo, lifo
-- grouped:
--   @grouping
-- both:
--   letters...(id, member)   the member is '' if the letter has it
-- Returns for each letter, up to the one that makes them 256 KiB: 1 if it was queued, 0 if its item
--   is queued or held, -1 if it is gone, or the bytes to decode for its member. If nothing was
--   written, {'OPTIONS', the set's} or {'NAME'}
-- include: check
-- include: counting
-- include: portions
-- grouped:
-- include: due
-- include: leases
-- include: grouping
-- both:
if wrong_type(dead, 'stream') or wrong_type(queue, 'zset') or wrong_type(leased, 'zset')
  or wrong_type(leases, 'hash')
  or wrong_type(meta, 'hash') or (keyed and wrong_type(items, 'hash')) then
  return redis.error_reply(WRONG_TYPE)
end
local stored = call('HGET', meta, 'options')
if stored and stored ~= options then return {'OPTIONS', stored} end
if (keyed or ties) and call('EXISTS', name) == 1 then return {'NAME'} end
-- The removal of nothing shows that the user may remove, and lets a full server accept the rest.
call('XDEL', none, '0-1')
local outcomes, bytes, queued = {}, 0, 0
for i = letters_at, #ARGV, letters_width do
  if bytes >= BYTES then break end
  -- fields: letters at i
  local outcome = -1
  local entry = call('XRANGE', dead, id, id)[1]
  if entry then
    local fields = {}
    for k = 1, #entry[2], 2 do
      fields[entry[2][k]] = entry[2][k + 1]
      bytes = bytes + #entry[2][k + 1]
    end
    if member == '' then member = keyed and fields.member or not keyed and fields.raw end
    if not member then
      outcome = fields.raw or ''
    else
      local value = call('HGET', leases, member)
      -- A held item counts as there. ZSCORE finds a queued one.
      if call('ZSCORE', queue, member)
        or (value and string.sub(value, 1, 1) ~= '.' and call('ZSCORE', leased, member)) then
        outcome = 0
      else
        local score = fields.score
        if not score or score == '' then
          score = 0
          if ties then
            -- If all numbers are used up it gets the last one.
            local number = math.min(call('HINCRBY', meta, 'sequence', 1), 2 ^ 40)
            score = ties == 'fifo' and number - 1 or 2 ^ 40 - number
          end
        end
        if keyed then call('HSET', items, member, fields.raw) end
-- grouped:
        local group = group_in(fields.raw)
        call('ZADD', index_of .. group, score, member)
        line_up({group}, nil, true)
-- both:
        call('ZADD', queue, score, member)
        call('XDEL', dead, id)
        outcome, queued = 1, queued + 1
      end
    end
  end
  outcomes[#outcomes + 1] = outcome
end
if call('XLEN', dead) == 0 then call('UNLINK', dead) end
if queued > 0 then count_event('requeued', queued) end
return {outcomes}

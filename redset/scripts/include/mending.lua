-- Included by steps that hand out items in turns, a piece of them, after turning: repairs what was
-- lost with a key that was deleted or evicted, if too little could be handed out. It looks at a few
-- items: all of them are met in the end. It does so at most ten times a second, or at once again if a
-- group stood nowhere (`is_mended`).
do
  local last, from = unpack(call('HMGET', meta, 'healed', 'healing'))
  if math.abs(now - (last or 0)) >= 100 then
    from = tonumber(from) or 0
    -- Leases without a row, and slots without a lease.
    heal(now, limit)
    local slots, held = {}, {}
    if call('EXISTS', working) == 1 then held = call('HRANDFIELD', working, 20, 'WITHVALUES') end
    for i = 1, #held, 2 do
      local members = {}
      for at = 1, #held[i + 1], 16 do members[#members + 1] = sub(held[i + 1], at, at + 15) end
      for k, there in ipairs(lookup('ZMSCORE', leased, members)) do
        if not there then
          slots[#slots + 1] = held[i]
          slots[#slots + 1] = members[k]
        end
      end
    end
    -- Groups that stand nowhere, items that their index lacks, and members without a payload.
    local found, by, order, lost = call('ZRANGE', queue, from, from + 29, 'WITHSCORES'), {}, {}, {}
    local looked, size = 0, 0
    while 2 * looked < #found and size < BYTES do
      local member, score = found[2 * looked + 1], found[2 * looked + 2]
      local payload = call('HGET', items, member) or ''
      if payload == '' then
        lost[#lost + 1] = member
      else
        sort_in(by, order, group_in(payload), score, member)
      end
      looked, size = looked + 1, size + #payload
    end
    for _, group in ipairs(order) do bulk('ZADD', index_of .. group, by[group]) end
    line_up(free(slots), now)
    is_mended = line_up(order, now) > 0
    dropped = dropped + bulk('ZREM', queue, lost)
    -- The next look goes on from here. Those that were removed are not counted.
    local after = from + looked - #lost
    call('HSET', meta, 'healed', is_mended and '0' or string.format('%.0f', now), 'healing',
      looked < 30 and size < BYTES and '0' or string.format('%d', after))
  end
end

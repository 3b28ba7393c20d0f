-- Included by steps that hand out items in turns, a piece of them, after turning: repairs what was
-- lost with a key that was deleted or evicted, if too little could be handed out. It does so at most
-- ten times a second, and looks at a bounded number of items: all of them are met in the end.
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
    -- Groups that stand nowhere, and items that their index lacks.
    local found, by, order, size = call('ZRANGE', queue, from, from + 99, 'WITHSCORES'), {}, {}, 0
    local num_found = #found
    for i = 1, num_found, 2 do
      local payload = size < BYTES and call('HGET', items, found[i])
      if payload then
        sort_in(by, order, group_in(payload), found[i + 1], found[i])
        size = size + #payload
      end
    end
    for _, group in ipairs(order) do bulk('ZADD', index_of .. group, by[group]) end
    line_up(free(slots), now)
    line_up(order, now)
    call('HSET', meta, 'healed', string.format('%.0f', now), 'healing',
      num_found < 200 and '0' or string.format('%d', from + 100))
  end
end

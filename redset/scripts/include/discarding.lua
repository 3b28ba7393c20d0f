-- Included by steps that remove by identity, after check, due and leases. They have the set's keys
-- as queue, leased, leases, and with a key= items. Removes members, also leased ones. Returns the
-- number that was queued or leased. Of a set with groups the entries of indexes stay: they are
-- dropped at their turn.
local function discard(members)
  local gone, rest = 0, members
  if leases and call('EXISTS', leases) == 1 then
    local recorded = {}
-- grouped:
    local slots = {}
-- both:
    rest = {}
    for i, value in ipairs(values_of(members)) do
      local member = members[i]
      if value then
        -- A leased member that was added again may be in both.
        local out = call('ZREM', leased, member)
        if call('ZREM', queue, member) == 1 or out == 1 then gone = gone + 1 end
        if items and out == 1 then call('HDEL', items, member .. '+') end
-- grouped:
        if out == 1 then
          slots[#slots + 1] = sub(value, 19, 18 + byte(value, 18))
          slots[#slots + 1] = member
        end
-- both:
        recorded[#recorded + 1] = member
      else
        rest[#rest + 1] = member
      end
    end
-- grouped:
    local freed = free(slots)
-- both:
    bulk('HDEL', leases, recorded)
-- grouped:
    line_up(freed)
-- both:
    -- A stray payload, which redset never leaves, is removed as well.
    gone = gone + bulk('ZREM', leased, rest)
  end
  gone = gone + bulk('ZREM', queue, rest)
  if items then bulk('HDEL', items, members) end
  return gone
end

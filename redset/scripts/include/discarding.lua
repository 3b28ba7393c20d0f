-- Included by steps that remove by identity, after check, due and leases. They have the set's keys as
-- queue, leased, leases, and with a key= items.
-- Removes members, also leased ones; how many were queued or leased.
local function discard(members)
  local gone, rest = 0, members
  if leases and call('EXISTS', leases) == 1 then
    local told = {}
    rest = {}
    for i, value in ipairs(values_of(members)) do
      local member = members[i]
      if value then
        -- One that is leased and was added meanwhile may be in both.
        local out = call('ZREM', leased, member)
        if call('ZREM', queue, member) == 1 or out == 1 then gone = gone + 1 end
        if items and out == 1 then call('HDEL', items, member .. '+') end
        told[#told + 1] = member
      else
        rest[#rest + 1] = member
      end
    end
    bulk('HDEL', leases, told)
    -- A stray one, which nothing of redset leaves, goes as well.
    gone = gone + bulk('ZREM', leased, rest)
  end
  gone = gone + bulk('ZREM', queue, rest)
  if items then bulk('HDEL', items, members) end
  return gone
end

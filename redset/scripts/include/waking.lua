-- Included by steps that hand out items in turns, a piece of them, before turning: groups whose rest
-- is over, or whose first item is due, join the line. At least as many as are handed out, so that
-- they are not kept waiting by those in line. `overslept`: whether there may be more of them.
local overslept = false
local function wake(key)
  local most = num + 10
  local awake = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', '0', most)
  if #awake == 0 then return end
  line_up(awake, now)
  if key == waiting then
    -- Those that the line took, or that now wait for something else.
    local still = lookup('ZMSCORE', waiting, awake)
    local gone = {}
    for i = 1, #awake do
      if still[i] and still[i] + 0 <= now then gone[#gone + 1] = awake[i] end
    end
    bulk('ZREM', waiting, gone)
  else
    bulk('ZREM', resting, awake)
  end
  overslept = overslept or #awake == most
end
wake(resting)
if group_due then wake(waiting) end

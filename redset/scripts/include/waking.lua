-- Included by steps that hand out items in turns, a piece of them, before turning: groups whose rest
-- is over, or whose first item is due, join the line. At least as many as are handed out, so that
-- they are not kept waiting by those in line, and more: rests of groups without items end, too.
-- `overslept`: whether there may be more of them.
local overslept = false
for _, key in ipairs(group_due and {resting, waiting} or {resting}) do
  local most = math.max(num + 10, limit)
  local awake = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', '0', most)
  if #awake > 0 then
    call('ZREM', none, '')
    line_up(awake, now)
    local gone = awake
    if key == waiting then
      -- Some wait for another item now.
      gone = {}
      for i, still in ipairs(lookup('ZMSCORE', waiting, awake)) do
        if still and still + 0 <= now then gone[#gone + 1] = awake[i] end
      end
    end
    bulk('ZREM', key, gone)
    overslept = overslept or #awake == most
  end
end

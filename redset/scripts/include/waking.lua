-- Included by steps that hand out items in turns, a piece of them, before turning: groups whose rest
-- is over, or whose first item is due, join the line. At least as many as are handed out, so that
-- they are not kept waiting by those in line, and more: rests of groups without items end, too.
-- Returns of leases, wakes and hand-outs together bound the step. `asked`: the number of items of the
-- call. `overslept`: whether more groups may wake.
local overslept, asked, num_awake = false, num, 0
num = math.min(num, limit)
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
    overslept, num_awake = overslept or #awake == most, num_awake + #awake
  end
end
num = math.min(num, math.max(limit / 2, limit - back - num_awake))

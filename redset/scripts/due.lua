-- Included by steps that hand out only what is due: the server's time as a score.
local function due_until()
  local clock = redis.call('TIME')
  return clock[1] .. '.' .. string.format('%06d', tonumber(clock[2]))
end

-- Included by steps that use the server's clock. It is read once per step: as a score, and in ms.
local function due_until(clock)
  clock = clock or redis.call('TIME')
  return clock[1] .. '.' .. string.format('%06d', tonumber(clock[2]))
end
local function milliseconds(clock)
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

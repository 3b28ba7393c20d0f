-- Included by steps that count what only the server knows. The counts are for operators, and hold no
-- work: a user who may not count them, or a key of another type, does not stop the step.
local function count_event(field, num)
  redis.pcall('HINCRBY', counts, field, num)
  redis.pcall('EXPIRE', counts, 604800)
end

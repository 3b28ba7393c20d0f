-- Puts back the dead letters of an exported set.
-- KEYS: dead
-- ARGV: id, raw, score, reason, attempts, member ('' where that is raw), ...
-- Returns how many there are now
local dead = KEYS[1]
for i = 1, #ARGV, 6 do
  local member = ARGV[i + 5]
  redis.call('XADD', dead, ARGV[i], 'raw', ARGV[i + 1], 'score', ARGV[i + 2], 'reason', ARGV[i + 3],
    'attempts', ARGV[i + 4], unpack(member ~= '' and {'member', member} or {}))
end
return redis.call('XLEN', dead)

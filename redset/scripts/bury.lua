-- Keeps what could not be decoded as dead letters. The removal of nothing is there for a full
-- server, which lets a script write on after a first write that frees.
-- KEYS: queue, none, dead
-- ARGV: raw, score, reason, ...
-- include: check
if wrong_type(KEYS[3], 'stream') then return redis.error_reply(WRONG_TYPE) end
call('ZREMRANGEBYRANK', KEYS[1], 1, 0)
for i = 1, #ARGV, 3 do
  call('XADD', KEYS[3], '*', 'raw', ARGV[i], 'score', ARGV[i + 1], 'reason', ARGV[i + 2],
    'attempts', '0')
end
return #ARGV / 3

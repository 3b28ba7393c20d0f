-- Keeps undecodable items as dead letters. Its first write is a removal without effect: a full
-- server performs a script whose first write frees memory.
-- KEYS: queue, none, dead, counts
-- ARGV:
--   letters...(raw, score, reason)
-- include: check
-- include: counting
if wrong_type(dead, 'stream') then return redis.error_reply(WRONG_TYPE) end
call('ZREMRANGEBYRANK', queue, 1, 0)
for i = letters_at, #ARGV, letters_width do
  -- fields: letters at i
  call('XADD', dead, '*', 'raw', raw, 'score', score, 'reason', reason, 'attempts', '0')
end
count_event('died', #ARGV / letters_width)
return #ARGV / letters_width

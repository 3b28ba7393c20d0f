-- Included by `add`, a piece of it: the memory takes what is new to it.
if ever then
  for i = 1, #to_learn do
    learned = learned + call('SADD', bucket_of(memory, to_learn[i]), to_learn[i])
  end
elseif limited then
  local expiry, args = string.format('%d', now + ttl), {}
  for i = 1, #to_learn do
    args[2 * i - 1] = expiry
    args[2 * i] = to_learn[i]
  end
  bulk('ZADD', seen, args)
  if #to_learn > 0 then
    local over = math.min(call('ZCOUNT', seen, '-inf', now), 2 * num_entries + 100)
    if over > 0 then call('ZREMRANGEBYRANK', seen, 0, over - 1) end
  end
end

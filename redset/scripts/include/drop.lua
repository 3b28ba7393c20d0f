-- Included by steps that unlink the buckets of a cleared memory, a bounded number per step.
-- The field 'old' of the meta lists the rest: epoch:buckets, with a space between.
local function drop(meta, seen, budget)
  local old = redis.call('HGET', meta, 'old')
  if not old then return 0 end
  local rest, left = {}, 0
  for epoch, buckets in string.gmatch(old, '(%x+):(%d+)') do
    buckets = tonumber(buckets)
    local names = {}
    while buckets > 0 and budget > 0 do
      buckets = buckets - 1
      budget = budget - 1
      names[#names + 1] = seen .. ':' .. epoch .. ':' .. string.format('%d', buckets)
    end
    if #names > 0 then redis.call('UNLINK', unpack(names)) end
    if buckets > 0 then
      rest[#rest + 1] = epoch .. ':' .. string.format('%d', buckets)
      left = left + buckets
    end
  end
  if left > 0 then
    redis.call('HSET', meta, 'old', table.concat(rest, ' '))
  else
    redis.call('HDEL', meta, 'old')
    if redis.call('HEXISTS', meta, 'options') + redis.call('HEXISTS', meta, 'old_groups') == 0 then
      redis.call('UNLINK', meta)
    end
  end
  return left
end

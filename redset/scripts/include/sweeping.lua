-- Included by steps that unlink the indexes of cleared sets with groups, after check and bytes. They
-- have the keys meta and index. The field 'old_groups' of the meta lists the epochs that are left.
-- Each has, set aside, the keys that name its groups. Returns whether there is more to unlink.
local function sweep_groups(limit)
  local old = call('HGET', meta, 'old_groups')
  if not old then return false end
  local epoch = string.match(old, '%d+')
  local prefix, left, size = index .. ':' .. epoch, limit, 0
  local function unlink(group)
    call('UNLINK', prefix .. ':' .. group)
    left = left - 1
  end
  for _, part in ipairs({'ready', 'resting', 'waiting', 'queue', 'tied'}) do
    local is_queue = part == 'queue' or part == 'tied'
    while left > 0 and size < BYTES do
      local some = call('ZPOPMIN', prefix .. '/' .. part, is_queue and 1 or left)
      if #some == 0 then break end
      for i = 1, #some, 2 do
        local payload = is_queue and call('HGET', prefix .. '/items', some[i])
        size = size + (payload and #payload or 0)
        unlink(payload and string.sub(payload, 2, 1 + string.byte(payload)) or some[i])
      end
    end
  end
  while left > 0 do
    local some = call('HRANDFIELD', prefix .. '/working', math.min(left, 100))
    if not some or #some == 0 then break end
    for _, group in ipairs(some) do unlink(group) end
    call('HDEL', prefix .. '/working', unpack(some))
  end
  if left <= 0 or size >= BYTES then return true end
  call('UNLINK', prefix .. '/items')
  local rest = string.match(old, '%d+ (.+)')
  if rest then
    call('HSET', meta, 'old_groups', rest)
  else
    call('HDEL', meta, 'old_groups')
    -- Without a set that began since, the next one begins anew.
    if call('HEXISTS', meta, 'options') + call('HEXISTS', meta, 'old') == 0 then
      call('UNLINK', meta)
    end
  end
  return rest ~= nil
end

-- Included by steps that unlink the indexes of cleared sets with groups, after check and bytes. They
-- have the keys meta and index. The field 'old_groups' of the meta lists the epochs that are left.
-- Each has, set aside, the keys that name its groups. Returns whether there is more to unlink.
local function sweep_groups(limit)
  local old = call('HGET', meta, 'old_groups')
  if not old then return false end
  local epoch = string.match(old, '%d+')
  local prefix, left, done = index .. ':' .. epoch, limit, {}
  local function unlink(group)
    if not done[group] then call('UNLINK', prefix .. ':' .. group) end
    done[group], left = true, left - 1
  end
  for _, part in ipairs({'ready', 'resting', 'waiting'}) do
    local some = left > 0 and call('ZPOPMIN', prefix .. '/' .. part, left) or {}
    for i = 1, #some, 2 do unlink(some[i]) end
  end
  while left > 0 do
    local some = call('HRANDFIELD', prefix .. '/working', math.min(left, 100))
    if not some or #some == 0 then break end
    for _, group in ipairs(some) do unlink(group) end
    call('HDEL', prefix .. '/working', unpack(some))
  end
  -- Groups that stood nowhere, by the payloads. As many are read at a time as fit by the largest.
  local size, largest, want = 0, 1, 1
  local function unlink_of(queued)
    while left > 0 and size < BYTES do
      local some, names = call('ZPOPMIN', queued, math.min(want, left)), {}
      if #some == 0 then break end
      for i = 1, #some, 2 do names[#names + 1] = some[i] end
      for _, payload in ipairs(call('HMGET', prefix .. '/items', unpack(names))) do
        payload = payload or ''
        unlink(string.sub(payload, 2, 1 + (string.byte(payload) or 0)))
        size, largest = size + #payload, math.max(largest, #payload)
      end
      want = math.max(1, math.min(2 * want, 100, math.floor((BYTES - size) / largest)))
    end
  end
  unlink_of(prefix .. '/queue')
  unlink_of(prefix .. '/tied')
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

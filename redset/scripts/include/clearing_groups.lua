-- Included by clear, a piece of it: sets aside what names the groups, for sweep_groups, and begins
-- another epoch of indexes. `has_indexes`: whether some are left to unlink.
local has_indexes = call('HEXISTS', meta, 'old_groups') == 1
local aside = {queue = grouped, tied = grouped_tied, items = items, ready = ready,
  resting = resting, waiting = waiting, working = working}
if call('EXISTS', grouped, grouped_tied, ready, resting, waiting, working) > 0 then
  has_indexes = true
  local epoch = call('HGET', meta, 'groups') or '0'
  local before = call('HGET', meta, 'old_groups')
  -- First, or leases would be left without payloads if these are refused.
  call('HDEL', none, '')
  call('HSET', meta, 'groups', string.format('%d', epoch + 1),
    'old_groups', before and before .. ' ' .. epoch or epoch)
  for part, key in pairs(aside) do
    if call('EXISTS', key) == 1 then call('RENAME', key, index .. ':' .. epoch .. '/' .. part) end
  end
end

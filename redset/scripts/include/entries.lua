-- Included by steps that read dead letters, after portions.
-- Returns up to num entries of a stream, from one id to another, and whether there may be more. It
-- reads `first` of them at first.
local function entries_of(stream, from, to, num, first)
  local entries = {}
  local n, more = in_portions(num, first, function(_, want)
    local part, ids, sizes = redis.call('XRANGE', stream, from, to, 'COUNT', want), {}, {}
    for i, entry in ipairs(part) do
      ids[i], sizes[i] = entry[1], 0
      for _, text in ipairs(entry[2]) do sizes[i] = sizes[i] + #text end
    end
    if #ids > 0 then from = '(' .. ids[#ids] end
    entries = append(entries, part)
    return ids, 1, sizes
  end)
  return cut(entries, n), more
end

-- One page of set algebra between two sets of this server.
-- KEYS: the other's queue, none (where ours has second keys), ours, then with second keys: leased, leases, meta, seen, items, name; with
--   a key= the other's items
-- ARGV: what (or, xor: the other's members are added; sub: they are removed; and: ours that the other
--   has not are removed; in: nothing), how many, how many to read at first, last score and member seen
--   ('' and '' at first), then what `adding` says of heads
-- Returns {how many were seen, how many of them both have, last score, last member}; or where nothing
--   was written what `adding` says of that
-- include: check
-- include: due
local other, none, queue, leased, leases, meta, seen, items, name, payloads = unpack(KEYS)
if #KEYS == 2 then none, queue = nil, none end
local what, num, first, from = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 5
local keyed, ties = ARGV[from + 5] == '1', ARGV[from + 12] ~= ''
if not keyed then items = nil end
-- include: leases
-- include: buckets
-- include: drop
-- include: adding
-- include: discarding
-- include: portions
-- include: paging
local theirs = what == 'or' or what == 'xor' or what == 'sub'
local score, last
if ARGV[4] ~= '' then score, last = ARGV[4], ARGV[5] end
-- Before anything is written: also a key of another type is an error here.
call('ZCARD', queue)
call('ZCARD', other)
if leases then call('ZCARD', leased) end
if items then
  call('HLEN', items)
  call('HLEN', payloads)
end
-- What may be held back is looked for, and found slowly among a few hundred that are packed.
if leases and call('HLEN', leases) > 0 then num = math.ceil(num / 4) end
local members, scores = page(theirs and other or queue, num, first, score, last)
local n = #members
if n == 0 then return {0, 0, '', ''} end
local both = 0
-- Places of members.
local added, removed = {}, {}
if what == 'sub' or what == 'or' then
  local all = what == 'sub' and removed or added
  for i = 1, n do all[i] = i end
else
  for i, there in ipairs(call('ZMSCORE', theirs and queue or other, unpack(members))) do
    if there then both = both + 1 end
    if what == 'xor' and not there then added[#added + 1] = i end
    if (what == 'xor' and there) or (what == 'and' and not there) then
      removed[#removed + 1] = i
    end
  end
end
local texts
if items and #added > 0 then
  texts = {}
  local kept, more = in_portions(#added, first, function(at, want)
    local names = {}
    for k = at + 1, at + want do names[#names + 1] = members[added[k]] end
    local part = call('HMGET', payloads, unpack(names))
    texts = append(texts, part)
    return names, 1, part
  end)
  if more then
    -- The page ends here.
    n = added[kept]
    cut(added, kept)
    while #removed > 0 and removed[#removed] > n do removed[#removed] = nil end
    -- Of `xor`, since only this removes as well.
    both = #removed
  end
end
local function try_removals()
  call('ZREM', none, '')
  call('HDEL', none, '')
end
if #added > 0 then
  local names = {}
  for k, i in ipairs(added) do names[k] = members[i] end
  -- By `adding` what has a payload, may be too much, or is held back; all else by one command, which
  -- comes to the same.
  local slowly = added
  if not (items or ties or ARGV[from + 4] ~= '') then
    local entries, held = {}, leases and call('HLEN', leases) > 0 and values_of(names)
    slowly = {}
    for k, i in ipairs(added) do
      if held and held[k] and owner_of(held[k]) ~= QUEUED then
        slowly[#slowly + 1] = i
      else
        entries[#entries + 1] = scores[i]
        entries[#entries + 1] = members[i]
      end
    end
    if #entries > 0 then
      if none then
        call('ZADD', none, 'XX', 0, '')
        try_removals()
      end
      call('ZADD', queue, 'LT', unpack(entries))
    end
  end
  local argv = {unpack(ARGV, from + 1, from + ADD_HEAD)}
  for k, i in ipairs(slowly) do
    -- One without a payload is what another consumer has just had.
    if not texts or texts[k] then
      argv[#argv + 1] = ties and math.floor(scores[i] / TIE) or scores[i]
      argv[#argv + 1] = members[i]
      if texts then argv[#argv + 1] = texts[k] end
    end
  end
  if #argv > ADD_HEAD then
    local outcome = add(argv, 0, try_removals)
    if outcome.err or type(outcome[1]) ~= 'number' then return outcome end
  end
end
if #removed > 0 then
  if none then try_removals() end
  local names = {}
  for k, i in ipairs(removed) do names[k] = members[i] end
  discard(names)
end
return {n, both, scores[n], members[n]}

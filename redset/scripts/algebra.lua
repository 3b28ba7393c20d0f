-- One page of set algebra between two sets of this server.
-- ungrouped:
-- KEYS: other, queue, none, leased, leases, meta, seen, items, name, payloads
-- grouped:
-- KEYS: other, queue, none, leased, leases, meta, seen, items, name, payloads, ready, resting, waiting, working, limits, shared, index
-- both:
--   The other set's queue, then this set's keys as far as they are needed; with key= the other's items.
-- ARGV:
-- grouped:
--   @grouping
-- both:
--   what                  or, xor: adds the other's members; sub: removes them; and: removes this
--     set's members that the other does not have; in: changes nothing
--   num: number           limit of members
--   first: number         number to read at first
--   last_score: optional  of the last one seen
--   last_member
--   @adding
-- Returns {number seen, number that both have, last score, last member, number added, number
--   updated, number refused}; or, if nothing was written, the reason of `adding`
-- include: check
-- include: due
if not keyed then items = nil end
-- include: leases
-- grouped:
-- include: grouping
-- both:
-- include: buckets
-- include: drop
-- include: adding
-- include: discarding
-- include: portions
-- include: paging
local theirs = what == 'or' or what == 'xor' or what == 'sub'
-- Before the first write: a key of another type is an error here, too.
call('ZCARD', queue)
call('ZCARD', other)
if leases then call('ZCARD', leased) end
if items then
  call('HLEN', items)
  call('HLEN', payloads)
end
-- Held members are looked up, which is slow among a few hundred that are packed.
if leases and call('HLEN', leases) > 0 then num = math.ceil(num / 4) end
local members, scores = page(theirs and other or queue, num, first, last_score, last_member)
local n = #members
if n == 0 then return {0, 0, '', '', 0, 0, 0} end
local both = 0
-- Positions of members.
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
    -- For `xor` only, since it also removes.
    both = #removed
  end
end
-- The numbers of members that are new, that move to a lower score, and that are added.
local fresh, lowered, asked = 0, 0, 0
local function try_removals()
  call('ZREM', none, '')
  call('HDEL', none, '')
end
if #added > 0 then
  local names = {}
  for k, i in ipairs(added) do names[k] = members[i] end
  -- `adding` adds members that have a payload, may exceed the limit, or are held. One command with
  -- the same effect adds all others.
  local slowly = added
  if not (items or ties or max_size) then
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
      local before = call('ZCARD', queue)
      local changed = call('ZADD', queue, 'LT', 'CH', unpack(entries))
      fresh, asked = call('ZCARD', queue) - before, #entries / 2
      lowered = changed - fresh
    end
  end
  local argv = {}
  for k, i in ipairs(slowly) do
    -- A member without a payload was just removed by another consumer.
    if not texts or texts[k] then
      argv[#argv + 1] = ties and math.floor(scores[i] / TIE) or scores[i]
      argv[#argv + 1] = members[i]
      if texts then argv[#argv + 1] = texts[k] end
      asked = asked + 1
    end
  end
  if #argv > 0 then
    local outcome = add(argv, 1, try_removals)
    if outcome.err or type(outcome[1]) ~= 'number' then return outcome end
    fresh, lowered = fresh + outcome[1], lowered + outcome[2]
  end
end
if #removed > 0 then
  if none then try_removals() end
  local names = {}
  for k, i in ipairs(removed) do names[k] = members[i] end
  discard(names)
end
return {n, both, scores[n], members[n], fresh, lowered, asked - fresh - lowered}

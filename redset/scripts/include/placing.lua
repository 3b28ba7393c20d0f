-- Included by `add`: the common part of its ways.
-- grouped:
-- The payloads of entries that are held, and whether the last ZADD counts the new ones.
local parked_payloads, counts = {}, false
-- both:
-- Returns the stored score of a score with ties=. It has the number that an item keeps while it is
-- queued or leased, or the next one.
local function place(score, there)
  if there then return score * TIE + there % TIE end
  sequence = sequence + 1
  return score * TIE + (ties == 'fifo' and sequence - 1 or TIE - sequence)
end

-- Returns a field of all entries, or of those in a list.
local function columns(which, list)
  local found = {}
  for i = 1, list and #list or num_entries do
    found[i] = entries[before + ((list and list[i] or i) - 1) * entry_width + which]
  end
  return found
end

-- Returns the leases and delays of the members that are not queued.
local function held_among(members, scores)
  local held, asked, places = {}, {}, {}
  for i = 1, #members do
    if not (scores and scores[i]) then
      asked[#asked + 1] = members[i]
      places[#places + 1] = i
    end
  end
  for k, value in ipairs(values_of(asked)) do
    if value and owner_of(value) ~= QUEUED then
      if call('ZSCORE', leased, asked[k]) then
        held[places[k]] = value
      else
        stray[#stray + 1] = asked[k]
      end
    elseif value and scores then
      -- It was removed by a command, which leaves the record.
      stray[#stray + 1] = asked[k]
    end
  end
  return held
end

local function accept(at, there)
  local score = entries[at + 1]
  if ties then score = place(score, there) end
  local last = #zadd
  zadd[last + 1] = score
  zadd[last + 2] = entries[at + 2]
  if keyed then
    last = #hset
    hset[last + 1] = entries[at + 2]
    hset[last + 2] = entries[at + 3]
  end
  return score
end

-- Keeps an add of a held item until the end of its lease or delay.
local function park(at, value, there)
-- ungrouped:
  local attempts, score, _, last = parse(value)
-- grouped:
  local attempts, score, _, last, front = parse(value)
-- both:
  local later = entries[at + 1]
  local text = later
  if ties then
    later = place(later, there)
    text = format('~%.0f', later)
  end
  parked[#parked + 1] = entries[at + 2]
-- ungrouped:
  parked[#parked + 1] = lease_value(owner_of(value), attempts, score, text, last)
  if keyed then
    hset[#hset + 1] = entries[at + 2] .. '+'
    hset[#hset + 1] = entries[at + 3]
  end
-- grouped:
  parked[#parked + 1] = lease_value(owner_of(value), attempts, score, text, last, front)
  parked_payloads[#parked_payloads + 1] = entries[at + 2] .. '+'
  parked_payloads[#parked_payloads + 1] = entries[at + 3]
-- both:
  return later
end

-- Writes of nothing to an empty key: a full server refuses the step here, or a user without the right
-- to one of its writes. Otherwise an item could be known and not queued.
local function try_writes()
  if not none then return end
  call('ZADD', none, 'XX', '0', '')
  if keyed or remember ~= '' or ties then
    -- A hash has no write of nothing: the meta is written again unchanged.
    if stored[1] then
      call('HSET', meta, 'layout', '1')
    elseif remember ~= '' then
      call('HSET', meta, 'layout', '1', 'options', options, 'epoch', epoch)
    else
      call('HSET', meta, 'layout', '1', 'options', options)
    end
  end
  if try_removals then try_removals() end
end

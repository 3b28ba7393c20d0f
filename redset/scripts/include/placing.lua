-- Included by `add`: what several of its ways do.
-- Returns what is stored for a score with ties=: beside it the number that an item keeps as long as
-- it is there, or the next one.
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

-- Returns what holds back those of the members that are not queued: leases, and delays.
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
  zadd[#zadd + 1] = score
  zadd[#zadd + 1] = entries[at + 2]
  if keyed then
    hset[#hset + 1] = entries[at + 2]
    hset[#hset + 1] = entries[at + 3]
  end
  return score
end

-- Keeps what is added while it is held back, for the end of that.
local function park(at, value, there)
  local attempts, score, _, last = parse(value)
  local later = entries[at + 1]
  local text = later
  if ties then
    later = place(later, there)
    text = format('~%.0f', later)
  end
  parked[#parked + 1] = entries[at + 2]
  parked[#parked + 1] = lease_value(owner_of(value), attempts, score, text, last)
  if keyed then
    hset[#hset + 1] = entries[at + 2] .. '+'
    hset[#hset + 1] = entries[at + 3]
  end
  return later
end

-- Writes of nothing, where nothing is there: a server that is full, or a user who may not perform
-- one of the step's writes, refuses the step here, before an item is known and not queued.
local function try_writes()
  if not none then return end
  call('ZADD', none, 'XX', 0, '')
  if keyed or remember ~= '' or ties then
    -- A hash has no write of nothing: the meta says again what it says.
    if stored[1] then
      call('HSET', meta, 'layout', 1)
    elseif remember ~= '' then
      call('HSET', meta, 'layout', 1, 'options', options, 'epoch', epoch)
    else
      call('HSET', meta, 'layout', 1, 'options', options)
    end
  end
  if try_removals then try_removals() end
end

-- Included by `add`, a piece of it for a plain or nx add to a set with ties=: a queued item keeps
-- its place, unless its score or payload changes.
local members, at_once = columns(2), false
try_writes()
if num_entries >= 16 and not (keyed or wanted) then
  -- If most of these are new, most of the others are.
  local some, found = {}, 0
  for i = 1, 8 do some[i] = members[math.floor(i * num_entries / 8)] end
  for _, there in ipairs(call('ZMSCORE', queue, unpack(some))) do
    if there then found = found + 1 end
  end
  at_once = found < 4
end
if at_once then
  -- ZADD NX does not move queued items. They are looked up only if others have to move.
  local placed = {}
  for i = 1, num_entries do
    placed[2 * i - 1] = place(entries[before + 2 * i - 1])
    placed[2 * i] = members[i]
  end
  added = bulk('ZADD', queue, placed, 'NX')
end
if not at_once or (added < num_entries and condition == '') then
  local scores, at = lookup('ZMSCORE', queue, members), before
  for i = 1, num_entries do
    local there, outcome = scores[i], 'a'
    if not there then
      added = added + 1
      accept(at)
    elseif condition == 'nx' then
      outcome = 'r'
    else
      outcome = 'u'
      local above = there - entries[at + 1] * TIE
      if keyed or above < 0 or above >= TIE then accept(at, there) end
    end
    if wanted then outcomes[i] = outcome end
    at = at + entry_width
  end
end
if condition == '' then updated = num_entries - added end

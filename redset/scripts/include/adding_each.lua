-- Included by `add`, a piece of it for adds without a shorter path: it judges each entry.
local members = columns(2)
local scores = lookup('ZMSCORE', queue, members)
local held = holding and held_among(members, scores) or {}
local tokens, expiries, now
if ever then
  memory = memory_from(stored[4], stored[5], stored[6], seen, epoch)
  tokens = columns(memory_at)
elseif limited then
  now = milliseconds(call('TIME'))
  tokens = memory_at and columns(memory_at) or members
  expiries = lookup('ZMSCORE', seen, tokens)
end
-- Changes of this chunk itself: an item may be in it twice.
local queued, fresh, to_learn, grown = {}, {}, {}, 0
-- Number of entries that are still unknown, or for each the ms for which it stays known.
local unknown, left = 0, {}
local function is_known(i)
  if again or remember == '' then return false end
  if fresh[members[i]] then return true end
  if ever then return call('SISMEMBER', bucket_of(memory, tokens[i]), tokens[i]) == 1 end
  return expiries[i] and tonumber(expiries[i]) > now
end
-- Returns the outcome of an entry by the condition: a, u, or false.
local function allowed(score, current, value)
  if not current then
    local takes_new = condition == '' or condition == 'lt' or condition == 'gt'
    return (takes_new or (condition == 'nx' and not value)) and 'a'
  end
  if condition == '' then return 'u' end
  if condition == 'nx' then return false end
  score = tonumber(score)
  if condition == 'xx' then return score ~= current and 'u' end
  if condition == 'lt' or condition == 'xxlt' then return score < current and 'u' end
  return score > current and 'u'
end
local at = before
for i = 1, num_entries do
  local member, value = members[i], held[i]
  local there = queued[member]
  if there == nil then
    there = scores[i] and tonumber(scores[i]) or false
    if value then
      local _, _, later = parse(value)
      there = tonumber(bare(later)) or false
    end
  end
  -- A held and known entry is refused with every condition.
  local known, outcome = value and is_known(i) or nil, false
  if not known then
    outcome = allowed(entries[at + 1], there and ties and math.floor(there / TIE) or there, value)
    if outcome then
      known = is_known(i)
      if known and (outcome == 'a' or condition == '') then outcome = false end
    end
  end
  if outcome then
    queued[member] = tonumber(value and park(at, value, there) or accept(at, there))
    if remember ~= '' and not (known or aside) then
      to_learn[#to_learn + 1] = tokens[i]
      fresh[member] = true
    end
    if outcome == 'a' then added = added + 1 else updated = updated + 1 end
    if outcome == 'a' and not value then grown = grown + 1 end
  elseif asks then
    -- An entry that nx refuses because it is queued may be unknown.
    if known == nil then known = is_known(i) end
    if not known then unknown = unknown + 1 end
  end
  if asks and limited then
    left[i] = format('%d', outcome and ttl or known and expiries[i] - now or 0)
  end
  if wanted then outcomes[i] = outcome or 'r' end
  at = at + entry_width
end
if max_size and grown > 0 then
  local size = call('ZCARD', queue)
  if size + grown > max_size + 0 then return {'FULL', size} end
end
if added + updated > 0 then try_writes() end
-- include: learning
known_now = limited and table.concat(left, ' ') or unknown

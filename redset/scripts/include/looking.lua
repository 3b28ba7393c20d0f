-- Included by steps that only read, after leases and portions: the state of the set as if expired
-- leases were returned. They have the locals of finishing. Up to limit leases are read in detail,
-- as far as the bytes of a step allow. The others count as queued.
local DETAILS = 1000
-- grouped:
-- Of each group with expired leases: how many of them end, and whether an item of them is queued.
local ended_of, returned_to = {}, {}
-- both:
-- Returns the number of expired leases and delays, the number of these whose items would be dead
-- letters, the number that would be newly queued, the number of these up to a score, their lowest
-- score (nil: none), and the number of records that would end with their items.
local function look_at_expired(now, first, until_score)
  local died, queued, available, gone, lowest = 0, 0, 0, 0, nil
  local total = call('ZCOUNT', leased, '-inf', now)
  if total == 0 then return 0, 0, 0, 0, nil, 0 end
  local members = {}
  local n = in_portions(math.min(total, DETAILS), first, function(at, want)
    local part = call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', at, want)
    members = append(members, part)
    return part, 1
  end)
  cut(members, n)
  local there, values = lookup('ZMSCORE', queue, members), values_of(members)
  for i = 1, #members do
-- ungrouped:
    local value = values[i] or lease_value(DELAYED, 0, '0', '', '')
-- grouped:
    local value = values[i] or lease_value(DELAYED, 0, '0', '', '', '\0')
-- both:
-- ungrouped:
    local attempts, score, again = parse(value)
-- grouped:
    local attempts, score, again, _, front = parse(value)
    local group = sub(front, 2)
    ended_of[group] = (ended_of[group] or 0) + 1
-- both:
    local number, cohort = tried(attempts)
    local failed = owner_of(value) ~= DELAYED
    if failed and (cohort == 1 or max_attempts == 1) then number = number + 1 end
    if failed and max_attempts > 0 and number >= max_attempts then
      died = died + 1
      if values[i] then gone = gone + 1 end
      score = bare(again)
    elseif again ~= '' then
      score = going_on(again, score)
    end
-- grouped:
    if score ~= '' then returned_to[group] = true end
-- both:
    if score ~= '' and not there[i] then
      queued = queued + 1
      if tonumber(score) <= until_score then available = available + 1 end
      if not lowest or tonumber(score) < tonumber(lowest) then lowest = score end
    end
  end
  local rest = total - #members
  return total, died, queued + rest, available + rest, lowest, gone
end

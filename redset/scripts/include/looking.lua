-- Included by steps that only look, after leases and portions: how the set would be if expired leases
-- were given back. They have what finishing asks for.
-- Leases are looked at in detail up to so many, and as far as a step goes by bytes; the others are
-- taken for queued ones.
local DETAILS = 1000
-- Returns how many leases and delays are over, how many of their items would be dead letters, how
-- many would be queued that are not, how many of these up to a score, the lowest score of these
-- (nil: there are none), and how many records of leases would die with their items.
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
    local value = values[i] or lease_value(DELAYED, 0, '0', '', '')
    local attempts, score, again = parse(value)
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
    if score ~= '' and not there[i] then
      queued = queued + 1
      if tonumber(score) <= until_score then available = available + 1 end
      if not lowest or tonumber(score) < tonumber(lowest) then lowest = score end
    end
  end
  local rest = total - #members
  return total, died, queued + rest, available + rest, lowest, gone
end

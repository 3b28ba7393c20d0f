-- Included by steps that end leases, after leases, at each place of a call: for one call. They have
-- the set's keys as queue, leased, leases, dead, and with a key= items; and max_attempts, after how
-- many attempts an item dies (0: never). Of a set with groups they have the functions of grouping.
-- Writes at the end: scores and members of the queue; records to delete and to keep; rows of delays;
-- payloads to delete and to keep; letters. A dying item leaves its places only after its letter is
-- written.
local back, gone, kept, delayed, ends, payloads, died = {}, {}, {}, {}, {}, {}, {}
local dead_gone, dead_ends, dying = {}, {}, {}
-- grouped:
-- The group of each member, as it is from here on. Slots that end: group, member, ...
local group_of, slots, dead_slots = {}, {}, {}
-- both:
local function append_pair(list, one, other)
  local length = #list
  list[length + 1], list[length + 2] = one, other
end

-- Returns the end of a lease: the attempts of its item, its score, the score of an add during the
-- lease, its last error, whether it dies, and the stored form of its attempts.
local function judge(how, value, new_score, failure)
-- ungrouped:
  local attempts, score, again, last = parse(value)
-- grouped:
  local attempts, score, again, last, front = parse(value)
-- both:
  local cohort, suspect
  attempts, cohort, suspect = tried(attempts)
  local failed = how == 'fail' or (how == 'expire' and owner_of(value) ~= DELAYED)
  if how == 'fail' then
    attempts, suspect, last = attempts + 1, false, failure
  elseif failed then
    -- With max_attempts=1 an item is handed out once, also if its neighbours are fine.
    if cohort == 1 or max_attempts == 1 then attempts = attempts + 1 end
    cohort, suspect = math.max(1, math.floor(cohort / 2)), true
    last = last ~= '' and last or 'the lease expired'
  elseif how == 'bury' then
    last = failure
  elseif how == 'release' and new_score ~= '' then
    attempts, score, last, suspect = 0, going_on(new_score, score), '', false
  end
  local dies = how == 'bury' or (failed and max_attempts > 0 and attempts >= max_attempts)
  local stored = suspect and string.format('%d/%d!', attempts, cohort) or attempts
-- ungrouped:
  return attempts, score, again, last, dies, stored
-- grouped:
  return attempts, score, again, last, dies, stored, front
-- both:
end

-- Ends an item that is done or dies. If it was added during the lease, that add is queued.
local function leave(member, attempts, score, again, last, dies)
  local its_ends = ends
  if dies then
    died[#died + 1] = {member, score, attempts, last}
    dead_gone[#dead_gone + 1], dying[member], its_ends = member, true, dead_ends
  else
    gone[#gone + 1] = member
  end
  if again ~= '' then
    append_pair(back, bare(again), member)
  else
    its_ends[#its_ends + 1] = member
  end
end

-- Queues an item again, or lets it wait until then.
-- ungrouped:
local function go_on(member, score, again, last, stored, until_then)
-- grouped:
local function go_on(member, score, again, last, stored, until_then, front)
-- both:
  if until_then then
    append_pair(delayed, until_then, member)
-- ungrouped:
    append_pair(kept, member, lease_value(DELAYED, stored, score, again, last))
-- grouped:
    append_pair(kept, member, lease_value(DELAYED, stored, score, again, last, front))
-- both:
    return
  end
  append_pair(back, again ~= '' and going_on(again, score) or score, member)
  if stored == 0 then
    gone[#gone + 1] = member
  else
-- ungrouped:
    append_pair(kept, member, lease_value(QUEUED, stored, score, '', last))
-- grouped:
    append_pair(kept, member, lease_value(QUEUED, stored, score, '', last, front))
-- both:
  end
end

-- From here on a member's payload is that of the add during the lease.
local function take_payload(member, again, dies)
  local letter = dies and died[#died]
  if again ~= '' then
    local field = member .. '+'
    if letter then letter[5] = call('HGET', items, member) end
    local its_ends = letter and dead_ends or ends
    its_ends[#its_ends + 1] = field
-- ungrouped:
    append_pair(payloads, member, call('HGET', items, field) or '')
-- grouped:
    -- If it is lost, so is the group: the item is dropped at its turn.
    append_pair(payloads, member, call('HGET', items, field) or '\0')
    group_of[member] = group_in(payloads[#payloads])
-- both:
  elseif letter then
    letter[5] = call('HGET', items, member)
  end
end

-- Returns the members that are no longer held.
local function no_longer_held(members)
  if #delayed + #died == 0 then return members end
  local waits, over = {}, {}
  for i = 2, #delayed, 2 do waits[delayed[i]] = true end
  for i = 1, #members do
    if not (waits[members[i]] or dying[members[i]]) then over[#over + 1] = members[i] end
  end
  return over
end

-- In this order a step that is refused midway, because a right is missing, loses nothing and hands
-- nothing out twice. First come writes that grow memory and may be repeated. Then come removals of
-- items that live on, which the callers have tried on `none`. Then come letters, and last the removals
-- of dead items.
local function write(members)
  if #died > 0 then call('XLEN', dead) end
  local over = no_longer_held(members)
-- grouped:
  local by, order = {}, {}
  for i = 1, #back, 2 do sort_in(by, order, group_of[back[i + 1]], back[i], back[i + 1]) end
  for _, group in ipairs(order) do bulk('ZADD', index_of .. group, by[group]) end
-- both:
  bulk('ZADD', queue, back, 'NX')
  bulk('ZADD', leased, delayed)
  if items then bulk('HSET', items, payloads) end
  bulk('HSET', leases, kept)
  bulk('ZREM', leased, over)
-- grouped:
  -- Between the row and the record: what a step leaves that ends here is healed by the record.
  free(slots)
-- both:
  bulk('HDEL', leases, gone)
  if items then bulk('HDEL', items, ends) end
  if #died == 0 then return end
  for _, letter in ipairs(died) do
    local member, score, attempts, reason, stored = unpack(letter)
    if items then
      call('XADD', dead, '*', 'raw', stored or '', 'score', score, 'reason', reason,
        'attempts', attempts, 'member', member)
    else
      call('XADD', dead, '*', 'raw', member, 'score', score, 'reason', reason,
        'attempts', attempts)
    end
  end
  bulk('ZREM', leased, dead_gone)
-- grouped:
  free(dead_slots)
-- both:
  bulk('HDEL', leases, dead_gone)
  if items then bulk('HDEL', items, dead_ends) end
  count_event('died', #died)
end

-- Ends the leases or delays of these members, each once. Returns the number of dead ones. how: ack,
-- fail, bury (it cannot be decoded), release, expire; settled: {delay in ms, new score or '', the error, new payload
-- or ''}.
-- ungrouped:
local function finish(how, members, values, now, settled)
  local delay, new_score, failure, payload = unpack(settled)
  local until_then = delay > 0 and string.format('%d', now + delay)
  for i = 1, #members do
    local member, value = members[i], values[i]
    if how == 'ack' and string.sub(value, 17, 17) == '0' then
      gone[#gone + 1] = member
      ends[#ends + 1] = member
    else
      local attempts, score, again, last, dies, stored = judge(how, value, new_score, failure)
      if how == 'ack' or dies then
        leave(member, attempts, score, again, last, dies)
      else
        if payload ~= '' then append_pair(payloads, member, payload) end
        go_on(member, score, again, last, stored, until_then)
        -- A delayed item is unchanged.
        if until_then then again = '' end
      end
      if items then take_payload(member, again, dies) end
    end
  end
  write(members)
  return #died
end
-- grouped:
-- The last of settled is the time for which the groups of the members rest, or nil.
local function finish(how, members, values, now, settled)
  local delay, new_score, failure, payload, rest = unpack(settled)
  local until_then = delay > 0 and string.format('%d', now + delay)
  local groups, seen = {}, {}
  local function note(group)
    if not seen[group] then groups[#groups + 1], seen[group] = group, true end
  end
  for i = 1, #members do
    local member, value = members[i], values[i]
    local attempts, score, again, last, dies, stored, front = judge(how, value, new_score, failure)
    local group = sub(front, 2)
    note(group)
    group_of[member] = group
    append_pair(dies and dead_slots or slots, group, member)
    if how == 'ack' or dies then
      leave(member, attempts, score, again, last, dies)
    else
      if payload ~= '' then
        append_pair(payloads, member, payload)
        front, group_of[member] = sub(payload, 1, 1 + byte(payload)), group_in(payload)
      end
      go_on(member, score, again, last, stored, until_then, front)
      -- A delayed item is unchanged.
      if until_then then again = '' end
    end
    take_payload(member, again, dies)
  end
  write(members)
  if rest then let_rest(groups, now + rest) end
  for i = 2, #back, 2 do note(group_of[back[i]]) end
  line_up(groups, now)
  return #died
end
-- both:

-- Included by steps that hand out items in turns, a piece of them, after grouping. They have as
-- locals: takes (whether the items are removed, not leased), token, expiry, now, hand, passes, num,
-- first, limit. It leaves the items in `taken` (member, score, ...) and `texts` (payloads), and what
-- the steps reply.
--
-- Theory of operation. A round reads the first groups of the line, and of each as many first items as
-- its limit, its interval and its share of the call allow. An entry of an index counts only if the
-- item is queued and its payload names the group. The writes come in an order in which a step that is
-- refused midway loses nothing and breaks no limit: slots, leases and rests, then the items leave the
-- queue, then the indexes, and last the groups leave the line or go to its end.
local got, dropped, passed, budget, rounds = 0, 0, 0, 2 * num + limit, 0
local taken, attempted, texts, fronts, before = {}, {}, {}, {}, {}
local stopped, bound, bytes, largest, want = false, math.huge, 0, 1, first
-- Groups whose index had entries too many. Next, so many of these are read at a time.
local stale, MANY = {}, 50
-- Writes the records of the leases from one place on, in a cohort.
local function record(from, in_hand)
  local cohort = in_hand > 1 and '/' .. string.format('%d', in_hand) or ''
  local records, place = {}, 0
  for i = from, got do
    local was, score = before[i], taken[2 * i]
    records[place + 1] = taken[2 * i - 1]
    if was then
      local attempts = string.format('%d', was[1])
        .. (was[2] and (cohort == '' and '/1' or cohort) .. '!' or cohort)
      records[place + 2] = lease_value(token, attempts, score, '', was[3], fronts[i])
    else
      records[place + 2] = token .. '0' .. fronts[i] .. '0' .. cohort .. ' ' .. score
    end
    place = place + 2
  end
  bulk('HSET', leases, records)
end
local has_own = call('EXISTS', limits, shared) > 0
while got < num and budget > 0 and bytes < BYTES and not stopped do
  want = math.min(want, num - got, budget)
  local groups = call('ZRANGE', ready, '0', want - 1)
  local num_groups = #groups
  if num_groups == 0 then break end
  rounds = rounds + 1
  local most, intervals
  if has_own then most, intervals = limits_of(groups) end
  local slots = (has_own or group_limit > 0) and fields_of(working, groups) or {}
  local share = math.max(1, math.floor(want / num_groups))
  -- Of each group: its length and name, its room, whether it then leaves the line, its interval,
  -- whether its index has more, and how many entries were read.
  local lead, rooms, leaves, waits, has_more, reads = {}, {}, {}, {}, {}, {}
  local members, owners, num_members = {}, {}, 0
  for i = 1, num_groups do
    local group, most_here, wait = groups[i], group_limit, group_interval
    if most then
      most_here, wait = most[i], intervals[i]
    elseif group == '' then
      most_here, wait = 0, 0
    end
    local room, leaving = share, false
    if most_here > 0 then
      local left = slots[i] and most_here - #slots[i] / 16 or most_here
      if left < 1 or not takes and left <= room then room, leaving = math.max(left, 0), true end
    end
    if wait > 0 and room > 0 then room, leaving = 1, true end
    lead[i], rooms[i], leaves[i], waits[i] = string.char(#group) .. group, room, leaving, wait
    if room == 0 then
      reads[i] = 0
    else
      local deep = stale[group] and num_members < 500
      local asked = deep and MANY or room
      local part = call('ZRANGE', index_of .. group, '0', leaving and asked - 1 or asked)
      local length = #part
      has_more[i] = length >= asked and (leaving or length > asked)
      if length > asked then length = asked end
      reads[i] = length
      for k = 1, length do
        num_members = num_members + 1
        members[num_members], owners[num_members] = part[k], i
      end
    end
  end
  budget = budget - num_groups - num_members
  local scores, payloads, known = {}, {}, {}
  if num_members > 0 then
    scores = lookup('ZMSCORE', queue, members)
    payloads = lookup('HMGET', items, members)
    if call('HLEN', leases) > 0 then known = fields_of(leases, members) end
  end
  -- Of each group: how many of the entries are done, how many items were handed out, their members,
  -- and why it ends its turn.
  local done, took, mine, ends = {}, {}, {}, {}
  for i = 1, num_groups do done[i], took[i] = 0, 0 end
  local from, out, gone, parked, lost, expiries = got + 1, {}, {}, {}, {}, {}
  for c = 1, num_members do
    local i, member, score, payload = owners[c], members[c], scores[c], payloads[c]
    if not (ends[i] or stopped or bytes >= BYTES) then
      local front, value = lead[i], known[c]
      local tries, last, suspect, cohort = 0, '', false, bound
      local held_back
      if value then
        held_back = string.sub(value, 1, 16) ~= QUEUED and call('ZSCORE', leased, member)
        if not held_back then
          local text, _
          text, _, _, last = parse(value)
          tries, cohort, suspect = tried(text)
          cohort = suspect and math.min(bound, cohort) or bound
        end
      end
      if not (score and payload and sub(payload, 1, #front) == front) then
        done[i], stale[groups[i]] = done[i] + 1, true
        if score and not payload then
          dropped = dropped + 1
          out[#out + 1] = member
          if value and not held_back then gone[#gone + 1] = member end
        end
      elseif group_due and math.ceil(score * 1000) > now then
        ends[i] = 'due'
      elseif held_back then
        -- It was queued while it is held, and waits for the end of that.
        local attempts, old_score, _, failure, old = parse(value)
        parked[#parked + 1] = member
        parked[#parked + 1] = lease_value(owner_of(value), attempts, old_score, score, failure, old)
        lost[#lost + 1], lost[#lost + 2] = member .. '+', payload
        out[#out + 1] = member
        done[i], stale[groups[i]] = done[i] + 1, true
      elseif not takes and hand + got + 1 > cohort then
        if passes and suspect and passed < 100 then
          passed = passed + 1
          ends[i] = 'passed'
        else
          stopped = true
        end
      else
        bound = cohort
        got = got + 1
        if value then
          before[got] = {tries, suspect, last}
          if tries > 0 then
            attempted[#attempted + 1] = got
            attempted[#attempted + 1] = tries
          end
          if takes then gone[#gone + 1] = member end
        end
        taken[2 * got - 1], taken[2 * got] = member, score
        texts[got], fronts[got], out[#out + 1] = payload, front, member
        done[i], took[i] = done[i] + 1, took[i] + 1
        mine[i] = mine[i] and mine[i] .. member or member
        if took[i] == rooms[i] then ends[i] = 'room' end
        local size = 16 + #payload
        bytes = bytes + size
        if size > largest then largest = size end
      end
    end
  end
  local sets, rests, quit, again, misplaced = {}, {}, {}, {}, {}
  for i = 1, num_groups do
    local group = groups[i]
    if mine[i] and not takes and (most and most[i] or group_limit) > 0 and group ~= '' then
      sets[#sets + 1] = group
      sets[#sets + 1] = slots[i] and slots[i] .. mine[i] or mine[i]
    end
    if took[i] > 0 and waits[i] > 0 then
      rests[#rests + 1] = string.format('%d', now + waits[i] + 1)
      rests[#rests + 1] = group
    end
    if rooms[i] == 0 or (leaves[i] and took[i] == rooms[i]) then
      quit[#quit + 1] = group
    elseif ends[i] == 'due' then
      quit[#quit + 1], misplaced[#misplaced + 1] = group, group
    elseif done[i] == reads[i] and not has_more[i] then
      quit[#quit + 1] = group
    elseif took[i] > 0 or ends[i] == 'passed' then
      again[#again + 1] = group
    end
  end
  if not takes then
    for k = from, got do
      -- The last one first: so the server finds its place at once while it keeps the rows packed.
      local place = 2 * (got - k)
      expiries[place + 1], expiries[place + 2] = expiry, taken[2 * k - 1]
    end
    bulk('HSET', working, sets)
    bulk('ZADD', leased, expiries)
    record(from, hand + got)
  end
  bulk('HSET', items, lost)
  bulk('HSET', leases, parked)
  bulk('ZADD', resting, rests, 'GT')
  bulk('ZREM', queue, out)
  for i = 1, num_groups do
    if done[i] > 0 then call('ZREMRANGEBYRANK', index_of .. groups[i], '0', done[i] - 1) end
  end
  bulk('HDEL', leases, gone)
  if takes then bulk('HDEL', items, out) end
  bulk('ZREM', ready, quit)
  if #again > 0 then
    local turn, turns = call('HINCRBY', meta, 'turn', #again), {}
    for k = 1, #again do
      turns[2 * k - 1], turns[2 * k] = string.format('%.0f', turn - #again + k), again[k]
    end
    bulk('ZADD', ready, turns)
  end
  line_up(misplaced, now)
  want = math.max(1, math.min(6 * want, math.floor((BYTES - bytes) / largest)))
end

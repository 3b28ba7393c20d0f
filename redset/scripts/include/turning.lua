-- Included by steps that hand out items in turns, a piece of them, after grouping. They have as
-- locals: takes (whether the items are removed, not leased), token, expiry, now, hand, passes, num,
-- first, limit, has_own (whether any group has own values). It leaves the items in `taken` (member,
-- score, ...) and `texts` (payloads), and what the steps reply.
--
-- Theory of operation. A round reads the first groups of the line, and of each as many first items as
-- its limit, its interval and its share of the call allow. An entry of an index counts only if the
-- item is queued and its payload names the group. The writes come in an order in which a step that is
-- refused midway loses nothing and breaks no limit: slots, leases and rests, then the items leave the
-- queue, then the indexes, and last the groups leave the line or go to its end.
local got, dropped, passed, budget, rounds = 0, 0, 0, 2 * num + limit, 0
local taken, attempted, texts, fronts, before = {}, {}, {}, {}, nil
local stopped, bound, bytes, largest, want = false, math.huge, 0, 1, first
-- Groups whose index had entries too many. Next, so many of these are read at a time. After a round
-- without an item so many groups are read.
local stale, MANY, idle, WIDE = nil, 50, false, math.min(20, first)
local char, find, due_now = string.char, string.find, group_due and due_until() + 0
while got < num and budget > 0 and bytes < BYTES and not stopped do
  want = math.min(want, num - got, budget)
  local wide = idle and math.max(want, WIDE) or want
  -- A number costs more than its text.
  local groups = call('ZRANGE', ready, '0', wide == 1 and '0' or wide - 1)
  local num_groups = #groups
  if num_groups == 0 then break end
  rounds = rounds + 1
  local most, intervals
  if has_own then most, intervals = limits_of(groups) end
  local slots = (has_own or group_limit > 0) and fields_of(working, groups) or {}
  local share = num_groups < want and math.floor(want / num_groups) or 1
  local many = stale and math.min(MANY, math.ceil(BYTES / largest))
  -- Of each group: its length and name, its room, whether it then leaves the line, whether its index
  -- has more, how many entries were read, and how many of these are done.
  local lead, rooms, leaves, has_more, reads, done = {}, {}, {}, {}, {}, {}
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
      local held = slots[i]
      local left = held and most_here - #held / 16 or most_here
      if left < 1 or not takes and left <= room then room, leaving = left > 0 and left or 0, true end
    end
    if wait > 0 and room > 0 then room, leaving = 1, true end
    lead[i], rooms[i], leaves[i], reads[i], done[i] = char(#group) .. group, room, leaving, 0, 0
    if room > 0 then
      local asked = many and stale[group] and num_members < 10 * many and many or room
      -- One more than it takes shows whether it then has others.
      local last = leaving and not idle and asked - 1 or asked
      local part = call('ZRANGE', index_of .. group, '0', last == 0 and '0' or last)
      local length = #part
      has_more[i] = length > last
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
    known = fields_of(leases, members)
  end
  -- Of each group: the members that it hands out, and why it ends its turn.
  local mine, ends = {}, {}
  local from, out, entries, gone, parked, lost = got + 1, {}, {}, {}, {}, {}
  -- In a round that reads more groups than it wants items, the group whose turn it is.
  local first_of, overtaken = wide > want and owners[1], false
  for c = 1, num_members do
    local i, member = owners[c], members[c]
    if first_of and first_of ~= i then
      -- Its first entries were too many, and others are left: it keeps its turn.
      overtaken = overtaken or not (mine[first_of] or ends[first_of]) and has_more[first_of]
      first_of = i
    end
    if not (ends[i] or stopped or overtaken or got == num or bytes >= BYTES) then
      local score, payload, value, front = scores[c], payloads[c], known[c], lead[i]
      local tries, last, suspect, cohort, held_back = 0, '', false, bound, false
      if value then
        held_back = sub(value, 1, 16) ~= QUEUED and call('ZSCORE', leased, member)
        if not held_back then
          local text, _
          text, _, _, last = parse(value)
          tries, cohort, suspect = tried(text)
          cohort = suspect and math.min(bound, cohort) or bound
        end
      end
      if not (score and payload and find(payload, front, 1, true) == 1) then
        entries[#entries + 1], done[i] = member, done[i] + 1
        stale = stale or {}
        stale[groups[i]] = true
        -- It is read but not handed out: it counts less.
        local size = payload and #payload or 0
        bytes, largest = bytes + size / 4, math.max(largest, size)
        if score and size == 0 then
          dropped = dropped + 1
          out[#out + 1] = member
          if value and not held_back then gone[#gone + 1] = member end
        end
      elseif due_now and score + 0 > due_now then
        ends[i] = 'due'
        -- An index may have it at an earlier time, after a step that was refused midway.
        call('ZADD', index_of .. groups[i], score, member)
      elseif held_back then
        -- It was queued while it is held, and waits for the end of that.
        local attempts, old_score, _, failure, old = parse(value)
        parked[#parked + 1] = member
        parked[#parked + 1] = lease_value(owner_of(value), attempts, old_score, score, failure, old)
        lost[#lost + 1], lost[#lost + 2] = member .. '+', payload
        out[#out + 1] = member
        entries[#entries + 1], done[i] = member, done[i] + 1
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
          before = before or {}
          before[got] = {tries, suspect, last}
          if tries > 0 then
            attempted[#attempted + 1] = got
            attempted[#attempted + 1] = tries
          end
          if takes then gone[#gone + 1] = member end
        end
        local place = 2 * got
        taken[place - 1], taken[place] = member, score
        texts[got], fronts[got], out[#out + 1] = payload, front, member
        entries[#entries + 1] = member
        local number = done[i] + 1
        done[i] = number
        mine[i] = mine[i] and mine[i] .. member or member
        -- Entries too many before them do not fill the room.
        if #mine[i] == 16 * rooms[i] then ends[i] = 'room' end
        local size = 16 + #payload
        bytes = bytes + size
        if size > largest then largest = size end
      end
    end
  end
  if not takes and got >= from then
    local in_hand, list, length = hand + got, {}, 0
    -- The last one first: so the server finds its place at once while it keeps the rows packed.
    for k = got, from, -1 do
      list[length + 1], list[length + 2] = expiry, taken[2 * k - 1]
      length = length + 2
    end
    local sets = {}
    for i = 1, num_groups do
      if mine[i] and (most and most[i] or group_limit) > 0 and groups[i] ~= '' then
        local held = slots[i]
        sets[#sets + 1] = groups[i]
        sets[#sets + 1] = held and held .. mine[i] or mine[i]
      end
    end
    bulk('HSET', working, sets)
    bulk('ZADD', leased, list)
-- include: recording
  end
  if lost[1] then
    bulk('HSET', items, lost)
    bulk('HSET', leases, parked)
  end
  if has_own or group_interval > 0 then
    local rests = {}
    for i = 1, num_groups do
      local wait = most and intervals[i] or groups[i] == '' and 0 or group_interval
      if mine[i] and wait > 0 then
        rests[#rests + 1] = string.format('%d', now + wait + 1)
        rests[#rests + 1] = groups[i]
      end
    end
    bulk('ZADD', resting, rests, 'GT')
  end
  if takes and out[1] then
    -- The other writes of this step, of nothing: after a refusal of one, taken items would be lost.
    call('HINCRBY', meta, 'turn', '0')
    call('ZADD', none, 'XX', '0', '')
  end
  bulk('ZREM', queue, out)
  -- The entries of a group follow each other.
  local at, quit, again, misplaced = 0, {}, nil, nil
  for i = 1, num_groups do
    local group, number = groups[i], done[i]
    if number == 1 then
      call('ZREM', index_of .. group, entries[at + 1])
    elseif number > 1 then
      call('ZREM', index_of .. group, unpack(entries, at + 1, at + number))
    end
    at = at + number
    if rooms[i] == 0 or (leaves[i] and ends[i] == 'room') then
      quit[#quit + 1] = group
    elseif ends[i] == 'due' then
      quit[#quit + 1], misplaced = group, misplaced or {}
      misplaced[#misplaced + 1] = group
    elseif number == reads[i] and not has_more[i] then
      quit[#quit + 1] = group
    elseif mine[i] or ends[i] == 'passed' then
      again = again or {}
      again[#again + 1] = group
    end
  end
  if gone[1] then
    call('HDEL', none, '')
    bulk('HDEL', leases, gone)
  end
  if takes then bulk('HDEL', items, out) end
  bulk('ZREM', ready, quit)
  if again then
    local turn, turns = call('HINCRBY', meta, 'turn', #again), {}
    for k = 1, #again do
      turns[2 * k - 1], turns[2 * k] = string.format('%d', turn - #again + k), again[k]
    end
    bulk('ZADD', ready, turns)
  end
  if misplaced then line_up(misplaced, now) end
  idle = got < from
  want = math.max(1, math.min(6 * want, math.floor((BYTES - bytes) / largest)))
end

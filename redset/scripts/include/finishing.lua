-- Included by steps that end leases, after leases. They have the set's keys as queue, leased,
-- leases, dead, and with a key= items; and max_attempts, after how many attempts an item
-- dies (0: never).
-- Ends what holds these members back, each of them once; how many died. how: ack, fail, bury (it cannot be
-- decoded), release, expire; settled: {delay in ms, new score or '', the error, new payload or ''}.
local function finish(how, members, values, now, settled)
  local delay, new_score, failure, payload = unpack(settled)
  local back, gone, kept, waiting, died, ends, payloads = {}, {}, {}, {}, {}, {}, {}
  -- What dies leaves its places only when its letter is written.
  local dead_gone, dead_ends, dying = {}, {}, {}
  for i = 1, #members do
    local member, value = members[i], values[i]
    if how == 'ack' and string.sub(value, 17, 17) == '0' then
      gone[#gone + 1] = member
      ends[#ends + 1] = member
    else
      local attempts, score, again, last = parse(value)
      local cohort, suspect
      attempts, cohort, suspect = tried(attempts)
      local failed = how == 'fail' or (how == 'expire' and owner_of(value) ~= DELAYED)
      if how == 'fail' then
        attempts, suspect, last = attempts + 1, false, failure
      elseif failed then
        -- With max_attempts=1 an item is handed out once, whatever came of its neighbours.
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
      if how == 'ack' or dies then
        local its_ends = ends
        if dies then
          died[#died + 1] = {member, score, attempts, last}
          dead_gone[#dead_gone + 1], dying[member], its_ends = member, true, dead_ends
        else
          gone[#gone + 1] = member
        end
        if again ~= '' then
          back[#back + 1] = bare(again)
          back[#back + 1] = member
        else
          its_ends[#its_ends + 1] = member
        end
      else
        if payload ~= '' then
          payloads[#payloads + 1] = member
          payloads[#payloads + 1] = payload
        end
        if delay > 0 then
          waiting[#waiting + 1] = string.format('%d', now + delay)
          waiting[#waiting + 1] = member
          kept[#kept + 1] = member
          kept[#kept + 1] = lease_value(DELAYED, stored, score, again, last)
          again = ''
        else
          back[#back + 1] = again ~= '' and going_on(again, score) or score
          back[#back + 1] = member
          if attempts > 0 or suspect then
            kept[#kept + 1] = member
            kept[#kept + 1] = lease_value(QUEUED, stored, score, '', last)
          else
            gone[#gone + 1] = member
          end
        end
      end
      if items and again ~= '' then
        -- From here on it is the one that was added meanwhile.
        local field = member .. '+'
        if dies then died[#died][5] = call('HGET', items, member) end
        ends[#ends + 1] = field
        payloads[#payloads + 1] = member
        payloads[#payloads + 1] = call('HGET', items, field) or ''
      elseif items and dies then
        died[#died][5] = call('HGET', items, member)
      end
    end
  end
  if #died > 0 then call('XLEN', dead) end
  local over = members
  if #waiting + #died > 0 then
    local waits = {}
    over = {}
    for i = 2, #waiting, 2 do waits[waiting[i]] = true end
    for i = 1, #members do
      if not (waits[members[i]] or dying[members[i]]) then over[#over + 1] = members[i] end
    end
  end
  -- In this order a step that is refused in its middle, for want of a right, loses nothing, and hands
  -- nothing out twice: what grows and may be repeated, then the removals of what lives on, which the
  -- callers have tried on `none`; then letters, and last the removals of what is dead.
  bulk('ZADD', queue, back, 'NX')
  bulk('ZADD', leased, waiting)
  if items then bulk('HSET', items, payloads) end
  bulk('HSET', leases, kept)
  bulk('ZREM', leased, over)
  bulk('HDEL', leases, gone)
  if items then bulk('HDEL', items, ends) end
  if #died == 0 then return 0 end
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
  bulk('HDEL', leases, dead_gone)
  if items then bulk('HDEL', items, dead_ends) end
  return #died
end

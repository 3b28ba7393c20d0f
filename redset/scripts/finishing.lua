-- Included by steps that end leases, behind leases. They have the set's keys as queue, leased,
-- leases, dead, and with a key= items; and max, after how many attempts an item dies (0: never).
-- Ends what holds these members back, each of them once. how: ack, fail, bury (it cannot be
-- decoded), release, expire; settled: {delay in ms, new score or '', the error, new payload or ''}.
local function finish(how, members, values, now, settled)
  local delay, new_score, failure, payload = unpack(settled)
  local back, gone, kept, waiting, died, ends, payloads = {}, {}, {}, {}, {}, {}, {}
  for i = 1, #members do
    local member, value = members[i], values[i]
    if how == 'ack' and string.sub(value, 17, 17) == '0' then
      gone[#gone + 1] = member
      ends[#ends + 1] = member
    else
      local attempts, score, again, last = parse(value)
      attempts = tonumber(attempts)
      local failed = how == 'fail' or (how == 'expire' and owner_of(value) ~= DELAYED)
      if failed then
        attempts = attempts + 1
        last = how == 'fail' and failure or (last ~= '' and last or 'the lease expired')
      elseif how == 'bury' then
        last = failure
      elseif how == 'release' and new_score ~= '' then
        attempts, score, last = 0, going_on(new_score, score), ''
      end
      local dies = how == 'bury' or (failed and max > 0 and attempts >= max)
      if how == 'ack' or dies then
        if dies then died[#died + 1] = {member, score, attempts, last} end
        gone[#gone + 1] = member
        if again ~= '' then
          back[#back + 1] = bare(again)
          back[#back + 1] = member
        else
          ends[#ends + 1] = member
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
          kept[#kept + 1] = lease_value(DELAYED, attempts, score, again, last)
          again = ''
        else
          back[#back + 1] = again ~= '' and going_on(again, score) or score
          back[#back + 1] = member
          if attempts > 0 then
            kept[#kept + 1] = member
            kept[#kept + 1] = lease_value(QUEUED, attempts, score, '', last)
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
  bulk('ZREM', leased, members)
  bulk('HDEL', leases, gone)
  if items then
    bulk('HDEL', items, ends)
    bulk('HSET', items, payloads)
  end
  bulk('HSET', leases, kept)
  bulk('ZADD', leased, waiting)
  bulk('ZADD', queue, back, 'NX')
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
end

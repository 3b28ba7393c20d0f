-- Included by steps that add a chunk of items, after check, due, leases, buckets and drop. They
-- have the set's keys as queue, then if it has second ones none, leased, leases, meta, seen, items,
-- name.
-- ARGV:
--   condition         '', nx, xx, lt, gt, xxlt, xxgt
--   again: flag
--   wanted: flag      whether outcomes are
--   max_size: number  the largest size, nil for any
--   keyed: flag
--   remember          '', ever, limited
--   ttl: number       how long a limited memory lasts, in ms
--   epoch
--   proposed: flag    whether the epoch is the caller's proposal
--   options
--   asks: flag        whether the caller asks what is known now
--   ties: optional    fifo, lifo
--   aside: flag       whether what is accepted is not to be remembered
-- An entry: score, member, [payload], [what is remembered].
-- Adds the entries of argv, which begin at `start`, and says what became of each, as if they
-- had been added one by one: {added, updated, outcomes, [known]}. Known is, of a memory forever,
-- how many entries may not be known even now; of a limited one, for each entry, how many ms it stays
-- known, 0 if it is not. Or where nothing was written {'EPOCH', the set's}, {'OPTIONS', the
-- set's}, {'NAME'}, {'FULL', size}, or an error.
-- `try_removals`, where given, is called behind the first write that may grow memory and before any
-- that changes something.
-- Adds the entries of argv, whose head is behind `from`, and says what became of each, as if they
-- had been added one by one: {added, updated, outcomes, [known]}. Known is, of a memory forever,
-- how many entries may not be known even now; of a limited one, for each entry, how many ms it stays
-- known, 0 if it is not. Or where nothing was written {'EPOCH', the set's}, {'OPTIONS', the
-- set's}, {'NAME'}, {'FULL', size}, or an error.
-- `try_removals`, where given, is called behind the first write that may grow memory and before any
-- that changes something.
local function add(argv, start, try_removals)
  local ever, limited = remember == 'ever', remember == 'limited'
  local head = start - 1

  -- What could refuse the step is asked before its first write.
  -- A count fails if a key has another type, and costs less than to ask for that.
  call('ZCARD', queue)
  local stored, holding = {}, leases and call('HLEN', leases) > 0
  if keyed or remember ~= '' or ties then
    if keyed then call('HLEN', items) end
    if limited then call('ZCARD', seen) end
    stored = call('HMGET', meta, 'options', 'epoch', 'old', 'level', 'split', 'count', 'sequence')
    if stored[1] and stored[1] ~= options then return {'OPTIONS', stored[1]} end
    if (keyed or ties) and (call('EXISTS', name) == 1 or (holding and not stored[1])) then
      return {'NAME'}
    end
    if remember ~= '' and stored[2] ~= epoch and (stored[2] or not proposed) then
      return {'EPOCH', stored[2] or ''}
    end
  end

  local width = keyed and 3 or 2
  local memory_at
  if ever or (limited and not keyed) then width = width + 1 memory_at = width end
  local n = (#argv - head) / width

  local sequence = tonumber(stored[7]) or 0
  local first = sequence
  if ties and sequence + n > TIE then
    if holding or call('ZCARD', queue) > 0 then
      return redis.error_reply('ERR the numbers of ties= are used up: they begin again once nothing '
        .. 'is queued or leased')
    end
    sequence = 0
  end
  -- What is stored for a score with ties=: beside it the number that an item keeps as long as it is
  -- there, or the next one.
  local function place(score, there)
    if there then return score * TIE + there % TIE end
    sequence = sequence + 1
    return score * TIE + (ties == 'fifo' and sequence - 1 or TIE - sequence)
  end
  local zadd, hset, parked = {}, {}, {}
  local added, updated, outcomes = 0, 0, {}
  local memory, new = nil, 0
  local unknown, left = 0, {}

  local function columns(which, list)
    local found = {}
    for i = 1, list and #list or n do
      found[i] = argv[head + ((list and list[i] or i) - 1) * width + which]
    end
    return found
  end
  -- What holds back those of the members that are not queued: leases, and delays.
  local stray = {}
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
    local score = argv[at + 1]
    if ties then score = place(score, there) end
    zadd[#zadd + 1] = score
    zadd[#zadd + 1] = argv[at + 2]
    if keyed then
      hset[#hset + 1] = argv[at + 2]
      hset[#hset + 1] = argv[at + 3]
    end
    return score
  end
  -- Keeps what is added while it is held back, for the end of that.
  local function park(at, value, there)
    local attempts, score, _, last = parse(value)
    local again = argv[at + 1]
    local text = again
    if ties then
      again = place(again, there)
      text = format('~%.0f', again)
    end
    parked[#parked + 1] = argv[at + 2]
    parked[#parked + 1] = lease_value(owner_of(value), attempts, score, text, last)
    if keyed then
      hset[#hset + 1] = argv[at + 2] .. '+'
      hset[#hset + 1] = argv[at + 3]
    end
    return again
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

  if ever then memory = memory_from(stored[4], stored[5], stored[6], seen, epoch) end
  if ever and condition == '' and not (again or max_size or aside) then
    -- The short way: an item that the memory takes is new or updated, any other is refused.
    local fresh, names = {}, {}
    local size, split, prefix = memory.size, memory.split, memory.prefix
    try_writes()
    for i = 1, n do
      -- As bucket_of, written out, and each name made once: it saves a fifth.
      local integer = argv[head + (i - 1) * width + memory_at]
      local low = tonumber(sub(integer, -9))
      if low < 0 then low = -low end
      local bucket = low % size
      if bucket < split then bucket = low % (size * 2) end
      local key = names[bucket]
      if not key then
        key = format('%s%d', prefix, bucket)
        names[bucket] = key
      end
      if call('SADD', key, integer) == 1 then
        new = new + 1
        fresh[new] = i
      end
      if wanted then outcomes[i] = 'r' end
    end
    local members = columns(2, fresh)
    local scores = lookup('ZMSCORE', queue, members)
    local held = holding and held_among(members, scores) or {}
    for k = 1, new do
      local at = head + (fresh[k] - 1) * width
      local is_new = not scores[k]
      if held[k] then
        local _, _, before = parse(held[k])
        is_new = before == ''
        park(at, held[k], tonumber(bare(before)))
      else
        accept(at, scores[k])
      end
      if is_new then added = added + 1 end
      if wanted then outcomes[fresh[k]] = is_new and 'a' or 'u' end
    end
    updated = new - added
  elseif ties and remember == '' and (condition == '' or condition == 'nx')
    and not (holding or max_size) then
    -- The same way, what is queued stays where it is, unless its score or payload changes.
    local members, at_once = columns(2), false
    try_writes()
    if n >= 16 and not (keyed or wanted) then
      -- Most of them are new where most of these are.
      local some, found = {}, 0
      for i = 1, 8 do some[i] = members[math.floor(i * n / 8)] end
      for _, there in ipairs(call('ZMSCORE', queue, unpack(some))) do
        if there then found = found + 1 end
      end
      at_once = found < 4
    end
    if at_once then
      -- ZADD itself leaves what is queued alone; which those are is asked only for the rest to move.
      local placed = {}
      for i = 1, n do
        placed[2 * i - 1] = place(argv[head + 2 * i - 1])
        placed[2 * i] = members[i]
      end
      added = bulk('ZADD', queue, placed, 'NX')
    end
    if not at_once or (added < n and condition == '') then
      local scores, at = lookup('ZMSCORE', queue, members), head, 0
      for i = 1, n do
        local there, outcome = scores[i], 'a'
        if not there then
          added = added + 1
          accept(at)
        elseif condition == 'nx' then
          outcome = 'r'
        else
          outcome = 'u'
          local above = there - argv[at + 1] * TIE
          if keyed or above < 0 or above >= TIE then accept(at, there) end
        end
        if wanted then outcomes[i] = outcome end
        at = at + width
      end
    end
    if condition == '' then updated = n - added end
  elseif condition == 'nx' and remember == '' and not (keyed or wanted or max_size or ties) then
    -- The same way, ZADD itself refuses what is queued.
    local held = holding and held_among(columns(2)) or {}
    for i = 1, n do
      if not held[i] then accept(head + (i - 1) * width) end
    end
    try_writes()
    local num = bulk('ZADD', queue, zadd, 'NX')
    bulk('HDEL', leases, stray)
    return {num, 0, ''}
  else
    local members = columns(2)
    local scores = lookup('ZMSCORE', queue, members)
    local held = holding and held_among(members, scores) or {}
    local tokens, expiries, now
    if ever then
      tokens = columns(memory_at)
    elseif limited then
      now = milliseconds(call('TIME'))
      tokens = memory_at and columns(memory_at) or members
      expiries = lookup('ZMSCORE', seen, tokens)
    end
    -- What this chunk itself has changed: an item may stand in it twice.
    local queued, fresh, learn = {}, {}, {}
    local grown = 0
    local function known(i)
      if again or remember == '' then return false end
      if fresh[members[i]] then return true end
      if ever then return call('SISMEMBER', bucket_of(memory, tokens[i]), tokens[i]) == 1 end
      return expiries[i] and tonumber(expiries[i]) > now
    end
    for i = 1, n do
      local at = head + (i - 1) * width
      local member, value = members[i], held[i]
      local there = queued[member]
      if there == nil then
        there = scores[i] and tonumber(scores[i]) or false
        if value then
          local _, _, before = parse(value)
          there = tonumber(bare(before)) or false
        end
      end
      local current = there and (ties and math.floor(there / TIE) or there)
      local outcome, is_known = 'r', nil
      if value and known(i) then
        -- Held back and known: refused whatever the condition.
        is_known = true
      elseif not current then
        if condition == '' or condition == 'lt' or condition == 'gt'
          or (condition == 'nx' and not value) then
          is_known = known(i)
          if not is_known then outcome = 'a' end
        end
      elseif condition == '' then
        is_known = known(i)
        if not is_known then outcome = 'u' end
      elseif condition ~= 'nx' then
        local number = tonumber(argv[at + 1])
        if (condition == 'xx' and number ~= current)
          or ((condition == 'lt' or condition == 'xxlt') and number < current)
          or ((condition == 'gt' or condition == 'xxgt') and number > current) then
          outcome = 'u'
          is_known = known(i)
        end
      end
      if outcome ~= 'r' then
        queued[member] = tonumber(value and park(at, value, there) or accept(at, there))
        if remember ~= '' and not (is_known or aside) then
          learn[#learn + 1] = tokens[i]
          fresh[member] = true
        end
        if outcome == 'a' then added = added + 1 else updated = updated + 1 end
        if outcome == 'a' and not value then grown = grown + 1 end
      elseif asks then
        -- What nx refuses because it is there may not be known.
        if is_known == nil then is_known = known(i) end
        if not is_known then unknown = unknown + 1 end
      end
      if asks and limited then
        left[i] = format('%d', outcome ~= 'r' and ttl or is_known and expiries[i] - now or 0)
      end
      if wanted then outcomes[i] = outcome end
    end
    if max_size and grown > 0 then
      local size = call('ZCARD', queue)
      if size + grown > max_size then return {'FULL', size} end
    end
    if added + updated > 0 then try_writes() end
    if ever then
      for i = 1, #learn do
        new = new + call('SADD', bucket_of(memory, learn[i]), learn[i])
      end
    elseif limited then
      local expiry, args = string.format('%d', now + ttl), {}
      for i = 1, #learn do
        args[2 * i - 1] = expiry
        args[2 * i] = learn[i]
      end
      bulk('ZADD', seen, args)
      if #learn > 0 then
        local over = math.min(call('ZCOUNT', seen, '-inf', now), 2 * n + 100)
        if over > 0 then call('ZREMRANGEBYRANK', seen, 0, over - 1) end
      end
    end
  end

  -- The payload before its place.
  bulk('HSET', items, hset)
  bulk('ZADD', queue, zadd)
  bulk('HSET', leases, parked)
  if sequence ~= first then call('HSET', meta, 'sequence', sequence) end
  if new > 0 then
    memory.count = memory.count + new
    grow(memory)
    save(meta, memory)
  end
  if #stray > 0 then
    -- Of what was refused the record is the only trace that is left.
    local accepted, gone, fields = {}, {}, {}
    for i = 2, #zadd, 2 do accepted[zadd[i]] = true end
    for i = 1, #stray do
      if accepted[stray[i]] then
        gone[#gone + 1] = stray[i]
        fields[#fields + 1] = stray[i] .. '+'
      end
    end
    bulk('HDEL', leases, gone)
    if keyed then bulk('HDEL', items, fields) end
  end
  if stored[3] then drop(meta, seen, 50) end
  if not asks then return {added, updated, table.concat(outcomes)} end
  return {added, updated, table.concat(outcomes), limited and table.concat(left, ' ') or unknown}
end

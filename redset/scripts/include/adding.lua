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
-- Adds the entries of a list, which begin at `start`, and says what became of each, as if they had
-- been added one by one: {added, updated, outcomes, [known]}. Known is, of a memory forever, how many
-- entries may not be known even now; of a limited one, for each entry, how many ms it stays known, 0
-- if it is not. Or where nothing was written {'EPOCH', the set's}, {'OPTIONS', the set's}, {'NAME'},
-- {'FULL', size}, or an error. A step calls it once.
-- `try_removals`, where given, is called behind the first write that may grow memory and before any
-- that changes something.
local function add(entries, start, try_removals)
  local ever, limited = remember == 'ever', remember == 'limited'
  -- The place before the first entry, how long an entry is, and where in it stands what is remembered.
  local before, entry_width, memory_at = start - 1, keyed and 3 or 2, nil
  if ever or (limited and not keyed) then
    entry_width = entry_width + 1
    memory_at = entry_width
  end
  local num_entries = (#entries - before) / entry_width
  -- A count fails if a key has another type, and costs less than to ask for that.
  call('ZCARD', queue)
  -- Fields of the meta, and whether there may be records of leases.
  local stored, holding = {}, leases and call('HLEN', leases) > 0
  -- The number of the next item with ties=.
  local sequence, first_number = 0, 0
  if keyed or remember ~= '' or ties then
-- include: refusing
  end
  -- What is to be written: places, payloads, and what is added while it is held back; and records of
  -- leases that hold nothing back.
  local zadd, hset, parked, stray = {}, {}, {}, {}
  local added, updated, outcomes = 0, 0, {}
  -- What the caller asks, the memory forever, and how many integers it took.
  local known_now, memory, learned = 0, nil, 0
-- include: placing
  -- The ways stand here, and not in functions: it takes time to make one, and each step makes all.
  if ever and condition == '' and not (again or max_size or aside) then
-- include: adding_unknown
  elseif ties and remember == '' and (condition == '' or condition == 'nx')
    and not (holding or max_size) then
-- include: adding_tied
  elseif condition == 'nx' and remember == '' and not (keyed or wanted or max_size or ties) then
-- include: adding_absent
  else
-- include: adding_each
  end
  -- The payload before its place.
  bulk('HSET', items, hset)
  bulk('ZADD', queue, zadd)
  bulk('HSET', leases, parked)
  if sequence ~= first_number then call('HSET', meta, 'sequence', sequence) end
  if learned > 0 then
    memory.count = memory.count + learned
    grow(memory)
    save(meta, memory)
  end
  if #stray > 0 then
-- include: straying
  end
  if stored[3] then drop(meta, seen, 50) end
  if not asks then return {added, updated, table.concat(outcomes)} end
  return {added, updated, table.concat(outcomes), known_now}
end

-- Included by steps that add a chunk of items, after check, due, leases, buckets and drop. They
-- have the set's keys as queue, then if it has second ones none, leased, leases, meta, seen, items,
-- name.
-- ARGV:
--   condition         '', nx, xx, lt, gt, xxlt, xxgt
--   again: flag
--   wanted: flag      returns outcomes
--   max_size: optional  the largest size, nil for any
--   keyed: flag
--   remember          '', ever, limited
--   ttl: number       time of a limited memory, in ms
--   epoch
--   proposed: flag    whether the epoch is the caller's proposal
--   options
--   asks: flag        returns which entries are known now
--   ties: optional    fifo, lifo
--   aside: flag       accepts entries without remembering them
-- An entry: score, member, [payload], [token in the memory].
-- Adds the entries of a list, which begin at `start`, with the results of adding them one by one. It
-- returns {added, updated, outcomes, [known]}. For a memory forever, known is the number of entries
-- that may still be unknown. For a limited one, it has the ms for which each entry stays known, or 0.
-- If nothing was written, it returns {'EPOCH', the set's}, {'OPTIONS', the set's}, {'NAME'},
-- {'FULL', size}, or an error. A step calls it once.
-- `try_removals`, if it is passed, is called after the first write that may grow memory, and before
-- any that changes something.
local function add(entries, start, try_removals)
  local ever, limited = remember == 'ever', remember == 'limited'
  -- The place before the first entry, the length of an entry, and the place of the token in it.
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
  -- Writes at the end: places, payloads, entries that are held, and records of leases that hold
  -- nothing.
  local zadd, hset, parked, stray = {}, {}, {}, {}
  local added, updated, outcomes = 0, 0, {}
  -- The caller's question, the memory forever, and the number of integers that it took.
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
-- ungrouped:
  bulk('ZADD', queue, zadd)
-- grouped:
-- include: adding_to_groups
-- both:
  bulk('HSET', leases, parked)
  if sequence ~= first_number then call('HSET', meta, 'sequence', sequence) end
  if learned > 0 then
    memory.count = memory.count + learned
    if grow(memory) > 0 or not stored[4] then
      save(meta, memory)
    else
      call('HSET', meta, 'count', format('%d', memory.count))
    end
  end
  if #stray > 0 then
-- include: straying
  end
-- include: tidying
  if not asks then return {added, updated, table.concat(outcomes)} end
  return {added, updated, table.concat(outcomes), known_now}
end

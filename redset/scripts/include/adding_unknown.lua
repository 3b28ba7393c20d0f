-- Included by `add`, a piece of it for a plain add to a set with a memory forever: an item that the
-- memory takes is new or updated, any other is refused.
memory = memory_from(stored[4], stored[5], stored[6], seen, epoch)
local fresh, names = {}, {}
local size, split, prefix = memory.size, memory.split, memory.prefix
try_writes()
for i = 1, num_entries do
  -- As bucket_of, written out, and each name made once: it saves a fifth.
  local integer = entries[before + (i - 1) * entry_width + memory_at]
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
    learned = learned + 1
    fresh[learned] = i
  end
  if wanted then outcomes[i] = 'r' end
end
local members = columns(2, fresh)
local scores = lookup('ZMSCORE', queue, members)
local held = holding and held_among(members, scores) or {}
for k = 1, learned do
  local at = before + (fresh[k] - 1) * entry_width
  local is_new = not scores[k]
  if held[k] then
    local _, _, later = parse(held[k])
    is_new = later == ''
    park(at, held[k], tonumber(bare(later)))
  else
    accept(at, scores[k])
  end
  if is_new then added = added + 1 end
  if wanted then outcomes[fresh[k]] = is_new and 'a' or 'u' end
end
updated = learned - added

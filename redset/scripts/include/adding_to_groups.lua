-- Included by `add`, a piece of it for sets with groups: writes the places of accepted entries.
bulk('HSET', items, parked_payloads)
-- The index before the place, too: entries too many are dropped at their turn.
local by, order = {}, {}
for i = 1, #zadd, 2 do
  local payload = hset[i + 1]
  local group = sub(payload, 2, 1 + byte(payload))
  local list = by[group]
  if list then
    local length = #list
    list[length + 1], list[length + 2] = zadd[i], zadd[i + 1]
  else
    by[group], order[#order + 1] = {zadd[i], zadd[i + 1]}, group
  end
end
for i = 1, #order do bulk('ZADD', index_of .. order[i], by[order[i]]) end
local num_new = bulk('ZADD', queue, zadd)
if counts then added, updated = num_new, learned - num_new end

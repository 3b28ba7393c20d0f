-- Included by `add`, a piece of it: deletes records without a row in `leased`, if their items were
-- accepted. For a refused item the record is all that is left, so it stays.
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

-- Included by `add`, a piece of it: deletes the records that held nothing back, of what was accepted.
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

-- Included by `add`, a piece of it for nx on a plain set: ZADD itself refuses queued items.
local held = holding and held_among(columns(2)) or {}
for i = 1, num_entries do
  if not held[i] then accept(before + (i - 1) * entry_width) end
end
try_writes()
added = bulk('ZADD', queue, zadd, 'NX')
bulk('HDEL', leases, stray)
zadd, stray = {}, {}

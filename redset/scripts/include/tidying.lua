-- Included by `add`, a piece of it: unlinks some of what a clear has left.
if stored[3] then drop(meta, seen, 50) end
-- grouped:
if stored[8] then
-- include: bytes
-- include: sweeping
  sweep_groups(50)
end
-- both:

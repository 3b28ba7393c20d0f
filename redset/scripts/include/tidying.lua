-- Included by `add`, a piece of it, after its writes: puts the groups in line, and unlinks some of what
-- a clear has left.
-- grouped:
-- Not earlier: a step that is refused here has added its items, and their groups are found by mending.
line_up(order, nil, true)
-- both:
if stored[3] then drop(meta, seen, 50) end
-- grouped:
if stored[8] then
-- include: bytes
-- include: sweeping
  sweep_groups(50)
end
-- both:

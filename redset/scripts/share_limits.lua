-- Stores the values that a crawl has for groups. They end with the crawl: each step keeps them for a
-- time.
-- KEYS: queue, none, items, leased, leases, meta, ready, resting, waiting, working, limits, shared, index
-- ARGV:
--   ttl: number                      time that they are kept in ms
--   @grouping
--   rows...(group, limit, interval)  a number of items (0: any) and ms; '' for the set's. The group
--     '' has those of all groups without a row
-- Returns whether there were any before
-- include: check
-- include: due
-- include: leases
-- include: grouping
local values, groups, known = {}, {}, call('EXISTS', shared)
for i = rows_at, #ARGV, rows_width do
  -- fields: rows at i
  values[#values + 1] = group
  values[#values + 1] = (limit == '' and '-' or limit) .. ' ' .. (interval == '' and '-' or interval)
  if group ~= '' then groups[#groups + 1] = group end
end
bulk('HSET', shared, values)
call('PEXPIRE', shared, ttl)
line_up(groups)
return known

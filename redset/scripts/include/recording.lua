-- Included by lease_in_turn and turning, a piece of them: writes the records of the leases from the
-- place `from` on, with a cohort of `in_hand`.
do
  local cohort = in_hand > 1 and '/' .. string.format('%d', in_hand) or ''
  local head, tail, records, place = token .. '0', '0' .. cohort .. ' ', {}, 0
  for k = from, got do
    local was, score = before and before[k], taken[2 * k]
    records[place + 1] = taken[2 * k - 1]
    if was then
      local attempts = string.format('%d', was[1])
        .. (was[2] and (cohort == '' and '/1' or cohort) .. '!' or cohort)
      records[place + 2] = lease_value(token, attempts, score, '', was[3], fronts[k])
    else
      records[place + 2] = head .. fronts[k] .. tail .. score
    end
    place = place + 2
  end
  bulk('HSET', leases, records)
end

-- Included by steps that ask what holds members back, after check. They have the key of that as
-- leases. Its values, of what is leased, waits out a delay, or is queued and failed before: the
-- owner's token (16 characters), 1 if the item was added meanwhile, else 0, attempts, ' ', score,
-- then what there is of ' ' and the score added meanwhile, and of a line break and the last error.
--
-- Theory of suspects. An item that kills its worker must not take its neighbours to the dead letters.
-- Attempts are a number, then '/' and the cohort unless that is 1: how many leases the worker had in
-- hand, this call's included. A lease that expires alone counts an attempt. Leases that expire
-- together count none: their items become suspects ('!' behind the cohort), and a suspect is handed
-- out next only in a cohort of half the size. So cohorts shrink, 10, 5, 2, 1, until the item that
-- kills is alone. Of a queued suspect the cohort is the largest that it may be in.
--
-- Held back is only what stands in `leased`: a record without a row there (the key was evicted or
-- deleted) holds nothing back.
-- With a key= what was added meanwhile is in `items` as member .. '+'.
-- With ties= a score is the user's times TIE, plus what orders equal ones, and ~ stands in front of
-- one that takes that of the item where this goes on: if its lease failed or expired.
local QUEUED, DELAYED = '................', '----------------'
local TIE = 2 ^ 40
-- Performs a command on any number of arguments; the sum of its counts.
local function bulk(command, key, list, option)
  local sum = 0
  for from = 1, #list, 4000 do
    local to = math.min(from + 3999, #list)
    if option then
      sum = sum + call(command, key, option, unpack(list, from, to))
    else
      sum = sum + call(command, key, unpack(list, from, to))
    end
  end
  return sum
end
-- Asks for any number of members.
local function lookup(command, key, members)
  if #members > 0 and #members <= 4000 then return call(command, key, unpack(members)) end
  local found = {}
  for from = 1, #members, 4000 do
    local part = call(command, key, unpack(members, from, math.min(from + 3999, #members)))
    for i = 1, #part do found[from + i - 1] = part[i] end
  end
  return found
end
-- Returns a function that gives of each member what holds it back, or false, for a step that asks it
-- of so many members in all and changes none of that before. A few hundred short ones the server
-- keeps packed, where each would be looked for from the start: these are read once.
local function values_reader(num)
  if num >= 50 then
    local all, packed = {}, true
    if call('HLEN', leases) > 0 then
      local encoding = redis.pcall('OBJECT', 'ENCODING', leases)
      packed = encoding == 'listpack' or encoding == 'ziplist'
      if packed then all = call('HGETALL', leases) end
    end
    if packed then
      local by_member = {}
      for i = 1, #all, 2 do by_member[all[i]] = all[i + 1] end
      return function(members)
        local found = {}
        for i = 1, #members do found[i] = by_member[members[i]] or false end
        return found
      end
    end
  end
  return function(members) return lookup('HMGET', leases, members) end
end
local function values_of(members) return values_reader(#members)(members) end
local function owner_of(value) return string.sub(value, 1, 16) end
-- Returns those of the members that nothing holds back and that have attempts, by their values.
local function with_attempts(members, values)
  local found = {}
  for i, value in ipairs(values) do
    if value and owner_of(value) == QUEUED then found[#found + 1] = members[i] end
  end
  return found
end
local function parse(value)
  return string.match(value, '^(%S+) (%S+) ?(%S*)\n?(.*)$', 18)
end
-- Returns attempts as a number, the cohort, and whether the item is a suspect.
local function tried(attempts)
  local number, cohort, mark = string.match(attempts, '^(%d+)/?(%d*)(!?)')
  return tonumber(number), tonumber(cohort) or 1, mark == '!'
end
local function bare(score) return string.match(score, '^~?(.*)') end
-- Returns a score as it is for an item that goes on from another one.
local function going_on(score, from)
  local own = string.match(score, '^~(.*)')
  if not own then return score end
  return string.format('%.0f', own - own % TIE + from % TIE)
end
local function lease_value(token, attempts, score, again, failure)
  local value = token .. (again == '' and '0' or '1') .. attempts .. ' ' .. score
  if again ~= '' then value = value .. ' ' .. again end
  if failure ~= '' then value = value .. '\n' .. failure end
  return value
end

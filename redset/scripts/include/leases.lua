-- Included by steps that read the records of leases, after check. They have the key of these as
-- leases.
--
-- Theory of operation. A record is the value of a member in the hash `leases`. It is kept for
-- leased and delayed items, and for queued items with attempts. Its format:
--   token(16) readded(0/1) attempts ' ' score [' ' new-score] ['\n' last-error]
-- In a set with groups the item's group is before the attempts, after its length (one byte).
-- `readded` is 1 if the item was added while it was held, at the new score. An item is held if it
-- has a row in `leased`. If the key was evicted or deleted, a record has no row there, and its item
-- is not held. With a key= the payload of an item that was added while it was held is in `items` as
-- member .. '+'. With ties= a score is the user's score times TIE, plus the item's sequence number.
-- A score after a ~ keeps the item's number if the lease failed or expired.
--
-- Suspects. An item that kills its worker must not make dead letters of the worker's other items.
-- Attempts are a number, then '/' and the cohort unless that is 1. The cohort is the number of leases
-- that the worker held, with those of this call. A lease that expires alone counts an attempt. Leases
-- that expire together do not: their items become suspects ('!' after the cohort). A suspect is
-- leased next only in a cohort of half the size. So cohorts shrink, 10, 5, 2, 1, until the item
-- that kills is alone. The cohort of a queued suspect is the largest that it may be in.
local QUEUED, DELAYED = '................', '----------------'
local TIE = 2 ^ 40
-- Performs a command on any number of arguments, and returns the sum of its counts.
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
-- Reads the values of any number of members.
local function lookup(command, key, members)
  if #members > 0 and #members <= 4000 then return call(command, key, unpack(members)) end
  local found = {}
  for from = 1, #members, 4000 do
    local part = call(command, key, unpack(members, from, math.min(from + 3999, #members)))
    for i = 1, #part do found[from + i - 1] = part[i] end
  end
  return found
end
-- Returns a function that reads the records of members. It is for a step that reads so many records
-- in all, and changes none before. The server keeps a few hundred short records packed, and searches
-- each from the start, so these are read once.
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
-- Returns the members that have attempts and are not held, with their values.
local function with_attempts(members, values)
  local found = {}
  for i, value in ipairs(values) do
    if value and owner_of(value) == QUEUED then found[#found + 1] = members[i] end
  end
  return found
end
-- ungrouped:
local function parse(value)
  return string.match(value, '^(%S+) (%S+) ?(%S*)\n?(.*)$', 18)
end
-- grouped:
-- The last result is the group with its length.
local function parse(value)
  local at = 19 + string.byte(value, 18)
  local attempts, score, again, last = string.match(value, '^(%d%S*) (%S+) ?(%S*)\n?(.*)$', at)
  if not attempts then
    -- A process without group= leased an item of its own.
    attempts, score, again, last = string.match(value, '^(%S+) (%S+) ?(%S*)\n?(.*)$', 18)
    return attempts, score, again, last, '\0'
  end
  return attempts, score, again, last, string.sub(value, 18, at - 1)
end
-- both:
-- Returns attempts as a number, the cohort, and whether the item is a suspect. A record of a set
-- with groups, or of one without, has none to be read here: the caller's options are wrong.
local function tried(attempts)
  local number, cohort, mark = string.match(attempts or '', '^(%d+)/?(%d*)(!?)')
  if not number then error('OTHER_OPTIONS ' .. leases) end
  return tonumber(number), tonumber(cohort) or 1, mark == '!'
end
local function bare(score) return string.match(score, '^~?(.*)') end
-- Returns the score of an item that keeps the number of another one.
local function going_on(score, from)
  local own = string.match(score, '^~(.*)')
  if not own then return score end
  return string.format('%.0f', own - own % TIE + from % TIE)
end
-- ungrouped:
local function lease_value(token, attempts, score, again, failure)
  local value = token .. (again == '' and '0' or '1') .. attempts .. ' ' .. score
-- grouped:
local function lease_value(token, attempts, score, again, failure, front)
  local value = token .. (again == '' and '0' or '1') .. front .. attempts .. ' ' .. score
-- both:
  if again ~= '' then value = value .. ' ' .. again end
  if failure ~= '' then value = value .. '\n' .. failure end
  return value
end

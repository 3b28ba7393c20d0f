-- Included by steps that write: refuses a key of another type before the first write, since a
-- WRONGTYPE at a later command would leave the earlier ones done.
local call = redis.call
local function wrong_type(key, kind)
  local found = call('TYPE', key).ok
  return found ~= 'none' and found ~= kind
end
local WRONG_TYPE = 'WRONGTYPE Operation against a key holding the wrong kind of value'

-- Puts back the dead letters of an exported set. A stream takes an id only behind its last one, and
-- an id of the future would be before all that die from now on: such a letter gets a new id.
-- KEYS: dead, none, meta
-- ARGV: what is restored, the number of this step, then id, raw, score, reason, attempts, member (''
--   if that is raw), ...
-- Returns how many items this restore queued; -1 if the set was cleared meanwhile
-- include: check
-- include: due
-- include: restoring
local dead, meta = KEYS[1], KEYS[3]
if wrong_type(dead, 'stream') then return redis.error_reply(WRONG_TYPE) end
local id, done, queued = progress(meta)
if id ~= ARGV[1] then return -1 end
if done >= tonumber(ARGV[2]) then return queued end
local now = milliseconds(call('TIME'))
for i = 3, #ARGV, 6 do
  local letter = {'raw', ARGV[i + 1], 'score', ARGV[i + 2], 'reason', ARGV[i + 3],
    'attempts', ARGV[i + 4]}
  if ARGV[i + 5] ~= '' then
    letter[9], letter[10] = 'member', ARGV[i + 5]
  end
  local is_past = tonumber(string.match(ARGV[i], '^%d+')) <= now
  local answer = is_past and redis.pcall('XADD', dead, ARGV[i], unpack(letter))
  if not answer or type(answer) == 'table' and answer.err then call('XADD', dead, '*', unpack(letter)) end
end
note(meta, ARGV[1], ARGV[2], queued)
return queued

-- Restores the dead letters of an exported set. A stream accepts an id only after its last one. An
-- id of the future would come after later deaths, so such a letter gets a new id.
-- KEYS: dead, none, meta
-- ARGV:
--   id              of the restored lines
--   number: number  of this step
--   letters...(letter_id, raw, score, reason, attempts, member)  the member is '' if that is raw
-- Returns the number of items that this restore queued; -1 if the set was cleared since
-- include: check
-- include: due
-- include: restoring
if wrong_type(dead, 'stream') then return redis.error_reply(WRONG_TYPE) end
local restored, done, queued = progress(meta)
if restored ~= id then return -1 end
if done >= number then return queued end
local now = milliseconds(call('TIME'))
for i = letters_at, #ARGV, letters_width do
  -- fields: letters at i
  local letter = {'raw', raw, 'score', score, 'reason', reason, 'attempts', attempts}
  if member ~= '' then
    letter[9], letter[10] = 'member', member
  end
  local is_past = tonumber(string.match(letter_id, '^%d+')) <= now
  local answer = is_past and redis.pcall('XADD', dead, letter_id, unpack(letter))
  if not answer or type(answer) == 'table' and answer.err then call('XADD', dead, '*', unpack(letter)) end
end
note(meta, id, number, queued)
return queued

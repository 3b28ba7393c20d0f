-- Returns {time in seconds, the text of INFO, or '' if that is refused}. A key only leads to its
--   node.
local text = redis.pcall('INFO')
return {redis.call('TIME')[1], type(text) == 'string' and text or ''}

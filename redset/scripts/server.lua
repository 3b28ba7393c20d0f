-- Says what the server tells of itself. A key, if there is one, is there to find the server by.
-- Returns {time in seconds, the text of INFO, or '' if that is refused}
local text = redis.pcall('INFO')
return {redis.call('TIME')[1], type(text) == 'string' and text or ''}

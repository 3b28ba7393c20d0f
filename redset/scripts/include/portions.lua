-- Included by steps that read members or payloads.
--
-- Theory of operation. A step is bounded by bytes as well as by count. Large items would keep other
-- clients waiting, and a reply of many MB is lost with the connection if a client's output is
-- limited. No command returns a member's length before it is read. So a step reads a few members,
-- and then as many more as fit by the largest of these, at most twice as many as before. It ends
-- after the member that reaches BYTES.
-- include: bytes
-- Reads up to num elements in portions, beginning with `first` elements. read(at, want) reads up to
-- `want` elements after the first `at`. It returns a list with one string every `stride` places,
-- the stride, and nil or a list of further sizes of each: a string, a number of bytes, or false.
-- Returns the number of elements that are kept, and whether there may be more.
local function in_portions(num, first, read)
  local at, bytes, largest, want = 0, 0, 1, first
  while at < num do
    want = math.min(want, num - at)
    local some, stride, others = read(at, want)
    local n = #some / stride
    for i = 1, n do
      local size, other = #some[(i - 1) * stride + 1], others and others[i]
      if other then size = size + (type(other) == 'number' and other or #other) end
      bytes = bytes + size
      at = at + 1
      if bytes >= BYTES then return at, at < num end
      if size > largest then largest = size end
    end
    if n < want then return at, false end
    want = math.max(1, math.min(2 * want, math.floor((BYTES - bytes) / largest)))
  end
  return at, false
end
-- Returns the members of {member, score, ...}. With a key= (the key of its payloads is passed), it
-- also returns the payloads, which replace the members in the list.
local function members_in(part, items)
  local names, payloads = {}, nil
  for i = 1, #part / 2 do names[i] = part[2 * i - 1] end
  if items and #names > 0 then
    payloads = redis.call('HMGET', items, unpack(names))
    for i = 1, #names do part[2 * i - 1] = payloads[i] end
  end
  return names, payloads
end
-- Appends a part of a list, and returns the list.
local function append(list, part)
  local length = #list
  if length == 0 then return part end
  for i = 1, #part do list[length + i] = part[i] end
  return list
end
-- Cuts a list to a length.
local function cut(list, length)
  for i = #list, length + 1, -1 do list[i] = nil end
  return list
end

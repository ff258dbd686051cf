#!lua name=nchf_2

-- Applies what nchf has decided: compares versions, then moves bytes. It never looks into a document and never
-- calculates: Lua's numbers are doubles and would round amounts.
--
-- A function has no rollback, so everything that can refuse or fail comes before the first write. All keys that a call
-- touches are declared and carry one hash tag. Documents are strings whose first eight bytes are their version.

-- The commit function of 0001, which also puts fields into hashes and takes them out.

-- What a check or a write does. Each stands in its list as one letter and the position of its key in two bytes.
local VERSION, LIST, SORTED_SET, STREAM, HASH = 118, 108, 122, 120, 104 -- v l z x h
local SET, SET_FOR, DELETE, APPEND, ADD, REMOVE, SEND = 83, 80, 68, 65, 90, 77, 88 -- S P D A Z M X
local PUT, TAKE = 72, 84 -- H T

-- The documents whose versions were to be compared, as they are now; false where there is none.
local function current(keys, checks)
  local found = {}
  for at = 1, #checks, 3 do
    local letter, high, low = string.byte(checks, at, at + 2)
    if letter == VERSION then
      found[#found + 1] = redis.call('GET', keys[high * 256 + low])
    end
  end
  return found
end

-- Arguments: the list of checks, an expected version for each VERSION among them (empty where there must be no
-- document), the list of writes, and what these write, in their order. Answers 1, or, if any version is another,
-- the current documents. A key of another type than its check or the first write names is an error of the call, and
-- then nothing was written.
local function commit(keys, args)
  local call, byte = redis.call, string.byte
  local checks = args[1]
  local arg = 2
  for at = 1, #checks, 3 do
    local letter, high, low = byte(checks, at, at + 2)
    local key = keys[high * 256 + low]
    if letter == VERSION then
      if call('GETRANGE', key, 0, 7) ~= args[arg] then
        return current(keys, checks)
      end
      arg = arg + 1
    elseif letter == LIST then
      call('LLEN', key)
    elseif letter == SORTED_SET then
      call('ZCARD', key)
    elseif letter == STREAM then
      call('XLEN', key)
    elseif letter == HASH then
      call('HLEN', key)
    end
  end

  -- From here on it succeeds.
  local writes = args[arg]
  arg = arg + 1
  for at = 1, #writes, 3 do
    local letter, high, low = byte(writes, at, at + 2)
    local key = keys[high * 256 + low]
    if letter == APPEND then
      call('RPUSH', key, args[arg])
      arg = arg + 1
    elseif letter == SET then
      call('SET', key, args[arg])
      arg = arg + 1
    elseif letter == SET_FOR then
      call('SET', key, args[arg], 'PX', args[arg + 1])
      arg = arg + 2
    elseif letter == ADD then
      call('ZADD', key, args[arg], args[arg + 1])
      arg = arg + 2
    elseif letter == REMOVE then
      call('ZREM', key, args[arg])
      arg = arg + 1
    elseif letter == SEND then
      call('XADD', key, '*', 'd', args[arg])
      arg = arg + 1
    elseif letter == PUT then
      call('HSET', key, args[arg], args[arg + 1])
      arg = arg + 2
    elseif letter == TAKE then
      call('HDEL', key, args[arg])
      arg = arg + 1
    elseif letter == DELETE then
      call('DEL', key)
    end
  end
  return 1
end

redis.register_function('nchf_commit_2', commit)

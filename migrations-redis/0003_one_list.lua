#!lua name=nchf_3

-- Applies what nchf has decided: compares versions, then moves bytes. It never looks into a document and never
-- calculates: Lua's numbers are doubles and would round amounts.
--
-- A function has no rollback, so everything that can refuse or fail comes before the first write. All keys that a call
-- touches are declared and carry one hash tag. Documents are strings whose first eight bytes are their version.

-- The commit function of 0002 with fewer arguments, each of which costs the store, and without numbers among those of
-- its commands, which Lua would print each time.

-- What a check or a write does. Each stands in the list as one letter, the position of its key in two bytes, and what
-- is named here. Letters of checks are small, and all of them stand before the first write.
local NOTHING, VERSION = 110, 118 -- n; v, the version in eight bytes
local LIST, SORTED_SET, STREAM, HASH = 108, 122, 120, 104 -- l z x h
local SET, DELETE, APPEND, ADD, REMOVE, SEND, PUT, TAKE = 83, 68, 65, 90, 77, 88, 72, 84 -- S D A Z M X H T
local SET_FOR = 80 -- P, the length of the milliseconds in one byte, and these in digits
local SMALL = 97

-- The documents whose versions were to be compared, as they are now; false where there is none.
local function current(keys, steps)
  local found = {}
  local at, last = 1, #steps
  while at < last do
    local letter, high, low = string.byte(steps, at, at + 2)
    if letter < SMALL then
      break
    end
    if letter == VERSION or letter == NOTHING then
      found[#found + 1] = redis.call('GET', keys[high * 256 + low])
    end
    at = at + (letter == VERSION and 11 or 3)
  end
  return found
end

-- Arguments: the list of checks and writes, and what the writes write, in their order. Answers 1, or, if any version is
-- another, the current documents. A key of another type than its check or the first write names is an error of the
-- call, and then nothing was written.
local function commit(keys, args)
  local call, byte, sub = redis.call, string.byte, string.sub
  local steps = args[1]
  local at, last = 1, #steps
  while at < last do
    local letter, high, low = byte(steps, at, at + 2)
    if letter < SMALL then
      break
    end
    local key = keys[high * 256 + low]
    at = at + 3
    if letter == VERSION then
      if call('GETRANGE', key, '0', '7') ~= sub(steps, at, at + 7) then
        return current(keys, steps)
      end
      at = at + 8
    elseif letter == NOTHING then
      if call('GETRANGE', key, '0', '7') ~= '' then
        return current(keys, steps)
      end
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
  local arg = 2
  while at < last do
    local letter, high, low = byte(steps, at, at + 2)
    local key = keys[high * 256 + low]
    at = at + 3
    if letter == APPEND then
      call('RPUSH', key, args[arg])
      arg = arg + 1
    elseif letter == SET then
      call('SET', key, args[arg])
      arg = arg + 1
    elseif letter == SET_FOR then
      local digits = byte(steps, at)
      call('SET', key, args[arg], 'PX', sub(steps, at + 1, at + digits))
      at = at + 1 + digits
      arg = arg + 1
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

redis.register_function('nchf_commit_3', commit)

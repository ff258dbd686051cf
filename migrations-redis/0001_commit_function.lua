#!lua name=nchf_1

-- Applies what nchf has decided: compares versions, then moves bytes. It never looks into a document and never
-- calculates: Lua's numbers are doubles and would round amounts.
--
-- A function has no rollback, so everything that can refuse or fail comes before the first write. All keys that a call
-- touches are declared and carry one hash tag. Documents are strings whose first eight bytes are their version.

-- What a check or a write does. Each stands in its list as one letter and the position of its key in two bytes.
local VERSION, LIST, SORTED_SET, STREAM = 118, 108, 122, 120 -- v l z x
local SET, SET_FOR, DELETE, APPEND, ADD, REMOVE, SEND = 83, 80, 68, 65, 90, 77, 88 -- S P D A Z M X

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
    elseif letter == DELETE then
      call('DEL', key)
    end
  end
  return 1
end

-- Key: a partition's timers. Arguments: now, the end of the lease, how many at most. Answers the entries that are due,
-- with their times, after moving them to the end of the lease; removing is left to the commit that acts on them.
local function claim(keys, args)
  local due = redis.call('ZRANGE', keys[1], '-inf', args[1], 'BYSCORE', 'LIMIT', 0, args[3], 'WITHSCORES')
  if #due > 0 then
    local leased = {}
    for at = 1, #due, 2 do
      leased[at], leased[at + 1] = args[2], due[at]
    end
    redis.call('ZADD', keys[1], unpack(leased))
  end
  return due
end

-- Whether a comes before b in the order of their bytes, which is how Redis orders them; Lua's own comparison follows
-- the locale.
local function before(a, b)
  for at = 1, math.min(#a, #b) do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

-- Key: a sorted set. Arguments: score and member of a position, which need not be there any more, and how many at most.
-- Answers what comes after it, with the scores. Finds the place by halving, so that a page costs the same everywhere.
local function page(keys, args)
  local score, member = tonumber(args[1]), args[2]
  local low, high = 0, redis.call('ZCARD', keys[1])
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('ZRANGE', keys[1], middle, middle, 'WITHSCORES')
    local at = tonumber(entry[2])
    if at > score or (at == score and before(member, entry[1])) then
      high = middle
    else
      low = middle + 1
    end
  end
  return redis.call('ZRANGE', keys[1], low, low + args[3] - 1, 'WITHSCORES')
end

redis.register_function('nchf_commit_1', commit)
redis.register_function('nchf_claim_1', claim)
redis.register_function{function_name = 'nchf_page_1', callback = page, flags = {'no-writes'}}

-- What every script that writes to the log shares; the library puts it in front of each script.
--
-- An entry's stream id is <ms>-<n>: <ms> is Redis's time (never going back), <n> the gapless number
-- of the entry in its epoch. So the id is the position, and trimming by id is trimming by time.
-- Only the epoch has to be stored beside it.

local function integer(x) return string.format('%.0f', x) end

local function clock()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

local function add(log, ...)
  redis.call('XADD', log.key, integer(log.ms) .. '-' .. integer(log.n + 1), 'epoch', log.epoch, ...)
  log.n = log.n + 1
  log.stored = log.ms
  return log.n
end

-- How many partitions a log says that there are, until a process has looked at its end (tail.lua).
local UNDIVIDED = '?'

-- The state of the log. A log that does not exist (the first node; a wiped Redis) begins a new epoch,
-- which every follower learns from an entry. It has the oldest format that is known, for nodes that know no newer one.
local function open(key, meta)
  local state = redis.call('HMGET', meta, 'epoch', 'n', 'ms', 'retention', 'shards')
  local now = clock()
  -- stored: the ms at which the last entry was stored, or later, but not after that of the next.
  local log = {key = key, meta = meta, now = now, ms = now, n = 0}
  if state[1] then
    log.epoch = state[1]
    log.n = tonumber(state[2])
    log.before = tonumber(state[3])
    log.stored = log.before
    log.ms = math.max(now, log.before)
    log.retention = tonumber(state[4])
    log.shards = state[5] or '1'  -- of a version that knew no partitions
    return log
  end
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
  if last[1] then
    local ms, n = string.match(last[1][1], '^(%d+)-(%d+)$')
    log.ms = math.max(now, tonumber(ms) + 1)
    log.n = tonumber(n)  -- so that what else is left, and names entries by their numbers, stays older than what comes
  end
  log.epoch = integer(log.ms)
  add(log, 'head', '["epoch"]')
  redis.call('HSET', meta, 'epoch', log.epoch, 'n', integer(log.n), 'ms', integer(log.ms),
    'format', OLDEST_FORMAT, 'shards', UNDIVIDED)
  log.shards = UNDIVIDED
  return log
end

local function close(log)
  redis.call('HSET', log.meta, 'n', integer(log.n), 'ms', integer(log.ms))
end

-- Trims the log, which ended at `had` before the script added to it. Redis trims by whole nodes of its radix tree
-- (stream-node-max-entries: 100), so where there are many batches not every one need ask.
local function trim(log, had, retention, max_length)
  if log.n > had and (math.floor(log.n / 50) > math.floor(had / 50) or log.ms - (log.before or 0) >= 1000) then
    if retention > 0 then redis.call('XTRIM', log.key, 'MINID', '~', integer(log.ms - retention)) end
    if max_length > 0 then redis.call('XTRIM', log.key, 'MAXLEN', '~', max_length) end
  end
end

-- The number of the oldest entry still stored, less one.
local function floor(log)
  local first = redis.call('XRANGE', log.key, '-', '+', 'COUNT', 1)
  if not first[1] then return log.n end
  return tonumber(string.match(first[1][1], '%d+$')) - 1
end

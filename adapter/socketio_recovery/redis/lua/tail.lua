-- Where the log ends; begins the log if there is none. Appends trim the log; where none come, this does.
--
-- KEYS  log, meta
-- ARGV  retention (ms) this node needs, 0 to leave the log's own
--       oldest, newest format that the caller knows; 1 = raise the log's format to the newest, 0 = leave it
--       how many partitions the caller has; 1 = the cluster has so many from now on, 0 = if the log does not say it,
--       -1 = leave it
-- Returns epoch, n of the last entry, ms at which it was stored or later, format, how many partitions the cluster has
-- (0 = the log does not say it); nothing is changed if the caller does not know the format, or has another number

local log = open(KEYS[1], KEYS[2])
local said = redis.call('HGET', KEYS[2], 'format')
local format = tonumber(said or 1) or 1
local known = format >= tonumber(ARGV[2]) and format <= tonumber(ARGV[3])
local shards = log.shards
if ARGV[6] == '1' or ARGV[6] == '0' and shards == UNDIVIDED then
  shards = ARGV[5]
  if known then redis.call('HSET', KEYS[2], 'shards', shards) end
end
if shards == UNDIVIDED then shards = '0' end
if known and shards == ARGV[5] then
  if ARGV[4] == '1' then format = tonumber(ARGV[3]) end
  if said ~= integer(format) then redis.call('HSET', KEYS[2], 'format', integer(format)) end
  local retention = tonumber(ARGV[1])
  if retention > 0 then redis.call('HSET', KEYS[2], 'retention', ARGV[1]) else retention = log.retention or 0 end
  if retention > 0 then
    local oldest = integer(log.now - retention)
    -- Whole nodes of the radix tree first, some at a time; then, exactly, what is left of one.
    if redis.call('XTRIM', log.key, 'MINID', '~', oldest) == 0 then redis.call('XTRIM', log.key, 'MINID', oldest) end
  end
end
return {log.epoch, integer(log.n), redis.call('HGET', KEYS[2], 'ms'), integer(format), shards}

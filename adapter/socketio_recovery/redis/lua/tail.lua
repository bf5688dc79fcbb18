-- Where the log ends; begins the log if there is none. Appends trim the log; where none come, this does.
--
-- KEYS  log, meta
-- ARGV  retention (ms) this node needs, 0 to leave the log's own
-- Returns epoch, n of the last entry, ms at which it was stored or later

local log = open(KEYS[1], KEYS[2])
if tonumber(ARGV[1]) > 0 then redis.call('HSET', KEYS[2], 'retention', ARGV[1]) end
local retention = tonumber(ARGV[1]) > 0 and tonumber(ARGV[1]) or log.retention or 0
if retention > 0 then
  local oldest = integer(log.now - retention)
  -- Whole nodes of the radix tree first, some at a time; then, exactly, what is left of one.
  if redis.call('XTRIM', log.key, 'MINID', '~', oldest) == 0 then redis.call('XTRIM', log.key, 'MINID', oldest) end
end
return {log.epoch, integer(log.n), redis.call('HGET', KEYS[2], 'ms')}

-- Where the log ends; begins the log if there is none.
--
-- KEYS  log, meta
-- ARGV  retention (ms) this node needs, 0 to leave the log's own
-- Returns epoch, n of the last entry, ms at which it was stored or later

local log = open(KEYS[1], KEYS[2])
if tonumber(ARGV[1]) > 0 then redis.call('HSET', KEYS[2], 'retention', ARGV[1]) end
return {log.epoch, integer(log.n), redis.call('HGET', KEYS[2], 'ms')}

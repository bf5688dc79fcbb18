-- Begins a new epoch because the log lost entries that clients have seen (a failover lost its tail).
-- Of many nodes that find this, the first does it: the others name an epoch that is gone. An epoch older than the one
-- that is named is broken, too: Redis was set back to before the newer one began.
--
-- KEYS  log, meta
-- ARGV  epoch (the one that is broken)
-- Returns the epoch in force

local log = open(KEYS[1], KEYS[2])
if tonumber(log.epoch) <= tonumber(ARGV[1]) then
  log.ms = math.max(log.ms, tonumber(ARGV[1]) + 1)
  log.epoch = integer(log.ms)
  redis.call('HSET', KEYS[2], 'epoch', log.epoch)
  add(log, 'head', '["epoch"]')
  close(log)
end
return log.epoch

-- What the log holds.
--
-- KEYS  log, meta
-- Returns now (ms), epoch, n of the last entry, ms at which it was stored or later, and the number of the newest entry
-- that is not held any more; 0 if none of this epoch is missing

local log = open(KEYS[1], KEYS[2])
local first = redis.call('XRANGE', log.key, '-', '+', 'COUNT', 1)[1]
local lost = log.n
if first then
  lost = first[2][2] == log.epoch and tonumber(string.match(first[1], '%d+$')) - 1 or 0
end
return {integer(log.now), log.epoch, integer(log.n), redis.call('HGET', log.meta, 'ms'), integer(lost)}

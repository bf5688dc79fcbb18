-- Where the log ends; begins the log if there is none.
--
-- KEYS  log, meta
-- ARGV  retention (ms) this node needs, 0 to leave the log's own
--       oldest, newest format that the caller knows; 1 = raise the log's format to the newest, 0 = leave it
-- Returns epoch, n of the last entry, ms at which it was stored or later, format; nothing is changed if the caller
-- does not know the format

local log = open(KEYS[1], KEYS[2])
local said = redis.call('HGET', KEYS[2], 'format')
local format = tonumber(said or 1) or 1
if format >= tonumber(ARGV[2]) and format <= tonumber(ARGV[3]) then
  if ARGV[4] == '1' then format = tonumber(ARGV[3]) end
  if said ~= integer(format) then redis.call('HSET', KEYS[2], 'format', integer(format)) end
  if tonumber(ARGV[1]) > 0 then redis.call('HSET', KEYS[2], 'retention', ARGV[1]) end
end
return {log.epoch, integer(log.n), redis.call('HGET', KEYS[2], 'ms'), integer(format)}

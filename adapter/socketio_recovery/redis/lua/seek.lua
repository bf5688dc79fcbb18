-- Finds an entry of the log by its number.
--
-- Numbers grow with time within an epoch, so the time at which the entry was stored is found by bisection; its id is
-- that time and its number.
--
-- KEYS  log, meta
-- ARGV  epoch, number
-- Returns the id of the first entry that has this number or a greater one; '' if the log is of another epoch, or ends
-- before

local log = open(KEYS[1], KEYS[2])
local wanted = tonumber(ARGV[2])
if log.epoch ~= ARGV[1] or wanted > log.n then return '' end

-- The first entry stored at ms or later: its time; and whether it is the wanted one or comes after that.
local function from(ms)
  local start, entry = integer(ms)
  repeat
    entry = redis.call('XRANGE', log.key, start, '+', 'COUNT', 1)[1]
    if not entry then return log.ms + 1, true end
    start = '(' .. entry[1]
  until entry[2][1] == 'epoch'  -- else something else wrote it
  local stored, n = string.match(entry[1], '^(%d+)-(%d+)$')
  return tonumber(stored), entry[2][2] == log.epoch and tonumber(n) >= wanted
end

local low, high = from(0), log.ms + 1
-- What was stored before low has a smaller number; the first entry stored at high or later does not.
while low < high do
  local middle = math.floor((low + high) / 2)
  local stored, reached = from(middle)
  if reached then high = middle else low = stored + 1 end
end
-- The entry may be the last but not the first of those stored in the millisecond before.
local entry = redis.call('XRANGE', log.key, integer(low - 1) .. '-' .. ARGV[2], '+', 'COUNT', 1)[1]
return entry and entry[1] or ''

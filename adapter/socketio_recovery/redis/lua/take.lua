-- Takes entries over from the inbox, each in one step: an event goes into the log, what is malformed is set aside with
-- the reason. So an entry is taken over once, whichever node runs this, and whenever nodes die. Entries that are gone
-- from the inbox were taken over already.
--
-- KEYS  log, meta, inbox, rejected
-- ARGV  retention (ms) used when no node has set one; max_length of the log (entries, 0 = no cap)
--       kept (entries), kept_bytes (roughly): how much is set aside at most; the oldest goes first
--       count     entries that follow, in the order of the inbox, each as:
--         id
--         fields (a count), then that many names and values for the log; or 0, then the reason why it is malformed
-- Returns epoch, n of the last entry of the log, how many events were taken over, how many entries were set aside,
--   the error at which it stopped ('' = none): that entry and those after it are still in the inbox

local log = open(KEYS[1], KEYS[2])
local inbox, rejected = KEYS[3], KEYS[4]
local retention, max_length = log.retention or tonumber(ARGV[1]), tonumber(ARGV[2])
local kept, kept_bytes, count = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local MOST_FIELDS = 2000  -- Lua passes on no more than some thousand values at once

-- Where the first removal would be refused, nothing must have been stored.
redis.call('XDEL', inbox, '0-0')

local function total(entry)
  for i = 1, entry and #entry[2] or 0, 2 do
    if entry[2][i] == 'total' then return tonumber(entry[2][i + 1]) or 0 end
  end
  return 0
end

-- `total` counts the bytes that were ever set aside, so two entries say how much is between them.
local function set_aside(id, fields, reason)
  local size = #reason
  for _, field in ipairs(fields) do size = size + #field end
  local sum = total(redis.call('XREVRANGE', rejected, '+', '-', 'COUNT', 1)[1]) + size
  redis.call('XADD', rejected, 'MAXLEN', '~', kept, '*', 'reason', reason, 'id', id, 'total', integer(sum),
    unpack(fields, 1, math.min(#fields, MOST_FIELDS)))
  local first = redis.call('XRANGE', rejected, '-', '+', 'COUNT', 2)
  while first[2] and sum - total(first[1]) > kept_bytes do
    redis.call('XDEL', rejected, first[1][1])
    first = redis.call('XRANGE', rejected, '-', '+', 'COUNT', 2)
  end
end

local had, taken, aside, failure = log.n, 0, 0, ''
local at = 6
for _ = 1, count do
  local id, fields = ARGV[at], tonumber(ARGV[at + 1])
  local last = at + 1 + math.max(fields, 1)
  local entry = redis.call('XRANGE', inbox, id, id)[1]
  if entry then
    local ok, why
    if fields > 0 then
      ok, why = pcall(add, log, unpack(ARGV, at + 2, last))
      taken = taken + (ok and 1 or 0)
    else
      ok, why = pcall(set_aside, id, entry[2], ARGV[last])
      aside = aside + (ok and 1 or 0)
    end
    if not ok then
      failure = tostring(type(why) == 'table' and why.err or why)
      break
    end
    redis.call('XDEL', inbox, id)
  end
  at = last + 1
end
close(log)
trim(log, had, retention, max_length)
return {log.epoch, integer(log.n), taken, aside, failure}

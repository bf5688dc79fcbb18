-- Makes a node the owner of a session whose own node died, to run its disconnect handler. Nobody can claim it any
-- more. A node that dies while it does so leaves it to be adopted again. Asked again with the same token, it
-- answers the same.
--
-- KEYS  session, log, meta, closes, owned
-- ARGV  token, holder (node and transport, as JSON without brackets), ttl (ms) without a heartbeat,
--       grace (ms) the record outlives its deadline
-- Returns the record's fields and values; nothing if it is gone, detached, or its owner is alive

local session, owned = KEYS[1], KEYS[5]
local found = redis.pcall('HMGET', session, 'token', 'deadline', 'ns')  -- an error if it is no record
if not found[3] or found[1] == '' then
  redis.call('ZREM', owned, session)
  return {}
end
local log = open(KEYS[2], KEYS[3])
if found[1] ~= ARGV[1] then
  if tonumber(found[2]) >= log.now then
    redis.call('ZADD', owned, found[2], session)
    return {}
  end
  redis.call('HSET', session, 'token', ARGV[1], 'open', ARGV[1] .. ' ', 'holder', ARGV[2], 'adopted', 1)
  redis.call('HINCRBY', session, 'claims', 1)
  own(session, owned, log.now + ARGV[3], ARGV[4], log.now)
end
for _, field in ipairs(redis.call('HKEYS', session)) do
  local room = string.match(field, '^r:(.*)$')
  if room then present(session, KEYS[4], found[3], room) end
end
return redis.call('HGETALL', session)

-- Takes a message, once: gives it its place in the room's history.
--
-- KEYS: what this author said under this id (hash), the room (hash), its recent messages (list), all rooms (sorted set)
-- ARGV: the message as JSON without its "{", how many to keep, seconds to keep them, the room's name, most rooms
-- Returns {message, "1" if everybody was told}, or {"", "rooms"} if there are too many rooms.
local before = redis.call('HMGET', KEYS[1], 'message', 'told')
if before[1] then return {before[1], before[2] or ''} end

local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
local keep = tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ms - keep * 1000)
  if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[5]) then return {'', 'rooms'} end
  -- Numbers go on from the time: those of a history that was lost do not come again.
  local first = string.format('%.0f', ms)
  redis.call('HSET', KEYS[2], 'first', first, 'last', string.format('%.0f', ms - 1))
end
local seq = redis.call('HINCRBY', KEYS[2], 'last', 1)
local message = string.format('{"seq":%.0f,"at":%.0f,', seq, ms) .. ARGV[1]
redis.call('RPUSH', KEYS[3], message)
redis.call('LTRIM', KEYS[3], -tonumber(ARGV[2]), -1)
redis.call('HSET', KEYS[1], 'message', message)
redis.call('ZADD', KEYS[4], string.format('%.0f', ms), ARGV[4])
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], keep) end
redis.call('EXPIRE', KEYS[4], keep)
return {message, ''}

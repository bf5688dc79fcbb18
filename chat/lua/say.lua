-- Adds a message to the history of its room, unless it was added before: gives it its number and its time.
--
-- KEYS: 1 the message of this author with this id (hash: message, told)
--       2 the room (hash: first, last, the numbers of its messages)
--       3 the room's recent messages (list)
--       4 all rooms (sorted set by the time of the last message, in ms)
-- ARGV: 1 the message as JSON without its "{", 2 how many messages of a room to keep, 3 for how many seconds,
--       4 the room's name, 5 how many rooms there may be
-- Returns {the message as JSON, "1" if it was sent to everybody, else ""};
--         {"", "rooms"} if there are too many rooms.
local before = redis.call('HMGET', KEYS[1], 'message', 'told')
if before[1] then return {before[1], before[2] or ''} end

local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
local keep = tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ms - keep * 1000)
  if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[5]) then return {'', 'rooms'} end
  -- Numbers begin with the time in ms. So if the room's history was lost, its old numbers are not used a second time.
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

-- Stores the session's data.
--
-- KEYS  session
-- ARGV  token, data (JSON)
-- Returns 1, or 0 if the session is gone or belongs to another connection

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'data', ARGV[2])
return 1

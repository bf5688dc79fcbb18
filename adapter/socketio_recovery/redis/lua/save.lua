-- Sets one field of a session's record.
--
-- KEYS  session
-- ARGV  token, field, value
-- Returns 1, or 0 if the session is gone or belongs to another connection

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1

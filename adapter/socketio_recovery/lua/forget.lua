-- Forgets a session: its client, or the application, disconnected it on purpose.
--
-- KEYS  session
-- ARGV  token
-- Returns 1, or 0 if the session is gone or belongs to another connection

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])

-- The owner's transport is gone: the session waits for another connection until its deadline.
--
-- KEYS  session
-- ARGV  token, ttl (ms) until the deadline, grace (ms), the deadline itself (ms; '' = now + ttl)
-- Returns 1, or 0 if the session is gone or belongs to another connection

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local now = clock()
local deadline = tonumber(ARGV[4]) or (now + ARGV[2])
redis.call('HSET', KEYS[1], 'token', '', 'holder', '', 'deadline', integer(deadline))
redis.call('PEXPIRE', KEYS[1], integer(math.max(deadline - now, 0) + ARGV[3]))
return 1

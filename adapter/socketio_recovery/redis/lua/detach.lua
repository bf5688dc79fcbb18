-- A connection is over, and its session is not: it waits for another connection until its deadline.
--
-- KEYS  session, owned
-- ARGV  token, ttl (ms) until the deadline, grace (ms) the record outlives it,
--       1 = a claim that failed, the deadline is the one that it found; 0 = the disconnect handler has run,
--       grace (ms) if an owner before has to be waited for
-- Returns 1, or 0 if the session is gone or belongs to another connection

local session, owned, token, failed = KEYS[1], KEYS[2], ARGV[1], ARGV[4] == '1'
local before, after = around(session, token)
if not before then return 0 end
local rest = failed and before .. after or after
redis.call('HSET', session, 'open', rest)
if redis.call('HGET', session, 'token') ~= token then return 0 end
local now = clock()
local deadline = failed and tonumber(redis.call('HGET', session, 'was')) or now + ARGV[2]
redis.call('HSET', session, 'token', string.match(rest, '(%S+) $') or '', 'holder', '')
if rest == '' then
  redis.call('ZREM', owned, session)
  redis.call('HSET', session, 'deadline', integer(deadline))
  redis.call('PEXPIRE', session, integer(math.max(deadline - now, 0) + ARGV[3]))
else
  own(session, owned, deadline, ARGV[5], now)
end
return 1

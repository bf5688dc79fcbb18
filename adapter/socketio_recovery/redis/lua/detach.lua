-- A connection is over, and its session is not: it waits for another connection until its deadline.
--
-- KEYS  session, owned, log, meta, everyone, then the sets of its rooms
-- ARGV  token, ttl (ms) until the deadline, grace (ms) the record outlives it,
--       1 = a claim that failed, the deadline is the one that it found; 0 = the disconnect handler has run,
--       grace (ms) if an owner before has to be waited for,
--       the head of an entry about the change, what the names of rooms' sets begin and end with,
--       1 = do it although rooms are not named
-- Returns 1; or 0 if the session is gone or belongs to another connection;
--      or 2 and the rooms of its record that are not named: nothing was changed;
--      or 3 if somebody ended the session meanwhile: nothing was changed, the caller then calls forget.lua

local session, owned, token, failed = KEYS[1], KEYS[2], ARGV[1], ARGV[4] == '1'
local before, after = around(session, token)
if not before then return {0} end
local rest = failed and before .. after or after
if redis.call('HGET', session, 'token') ~= token then
  redis.call('HSET', session, 'open', rest)
  return {0}
end
if rest == '' and redis.call('HGET', session, 'hash') == '' then return {3} end
local more = unnamed(session, ARGV[7], ARGV[8], 6)
if more[1] and ARGV[9] ~= '1' then return {2, unpack(more, 1, 1000)} end
redis.call('HSET', session, 'open', rest)
local now = clock()
local deadline = failed and tonumber(redis.call('HGET', session, 'was')) or now + ARGV[2]
if failed then
  redis.call('HSET', session, 'since', redis.call('HGET', session, 'was_since'))
else
  redis.call('HSET', session, 'since', integer(now), 'last', redis.call('HGET', session, 'holder'))
end
redis.call('HSET', session, 'token', string.match(rest, '(%S+) $') or '', 'holder', '')
if rest == '' then
  redis.call('ZREM', owned, session)
  redis.call('HSET', session, 'deadline', integer(deadline))
  redis.call('PEXPIRE', session, integer(math.max(deadline - now, 0) + ARGV[3]))
else
  own(session, owned, deadline, ARGV[5], now)
end
local everyone, sid = KEYS[5], sid_of(session)
set_state(everyone, sid, integer(deadline), now)
place(everyone, sid, 6, now)
if watched(KEYS[4], now) then note_change(open(KEYS[3], KEYS[4]), ARGV[6]) end
return {1}

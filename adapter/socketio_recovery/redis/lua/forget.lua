-- Forgets a session: its client, or the application, disconnected it on purpose; or it was adopted, and its
-- disconnect handler has run.
--
-- KEYS  session, owned, log, meta, everyone, then the sets of its rooms
-- ARGV  token, the head of an entry about the change, what the names of rooms' sets begin and end with,
--       1 = do it although rooms are not named
-- Returns 1; or 0 if the session is gone or belongs to another connection;
--      or 2 and the rooms of its record that are not named: nothing was changed

local session = KEYS[1]
local _, after = around(session, ARGV[1])
if not after then return {0} end
local found = redis.call('HMGET', session, 'token', 'adopted', 'hash')
if found[1] ~= ARGV[1] then
  redis.call('HSET', session, 'open', after)
  return {0}
end
local more = unnamed(session, ARGV[3], ARGV[4], 6)
if more[1] and ARGV[5] ~= '1' then return {2, unpack(more, 1, 1000)} end
redis.call('DEL', session)
redis.call('ZREM', KEYS[5], sid_of(session))
place(KEYS[5], sid_of(session), 6, 0)
if watched(KEYS[4], clock()) then note_change(open(KEYS[3], KEYS[4]), ARGV[2]) end
redis.call('ZREM', KEYS[2], session)
if found[2] then
  -- The owner that was thought dead may wake up yet: it must not run the handler again.
  redis.call('HSET', session, 'adopted', found[2], 'hash', found[3])
  redis.call('PEXPIRE', session, 86400000)
end
return {1}

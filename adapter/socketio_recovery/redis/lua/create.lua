-- Creates the record of a new session, owned by the connection that names a token.
-- Asked again with the same token, it answers the same.
--
-- KEYS  session, log, meta, owned, everyone
-- ARGV  namespace, hash of the secret ('' = can't be recovered), token,
--       holder (node and transport, as JSON without brackets), ttl (ms) without a heartbeat,
--       grace (ms) the record outlives its deadline, for a node to adopt it,
--       the node's number with a minus sign, the head of an entry about the change
-- Returns epoch, n of the last entry of the log (the session's birth), ms at which that was stored or later, 0 = not known

local session = KEYS[1]
local log = open(KEYS[2], KEYS[3])
if redis.call('HGET', session, 'token') == ARGV[3] then
  return {redis.call('HGET', session, 'epoch'), redis.call('HGET', session, 'birth'), '0'}
end
local n, ms = integer(log.n), integer(log.stored)
redis.call('DEL', session)
redis.call('HSET', session, 'ns', ARGV[1], 'hash', ARGV[2], 'token', ARGV[3], 'open', ARGV[3] .. ' ', 'holder', ARGV[4],
  'claims', 1, 'epoch', log.epoch, 'birth', n, 'confirmed', n, 'sent', n,
  'data', '{}', 'since', integer(log.now))
own(session, KEYS[4], log.now + ARGV[5], ARGV[6], log.now)
set_state(KEYS[5], sid_of(session), ARGV[7], log.now)
if watched(KEYS[3], log.now) then note_change(log, ARGV[8]) end
return {log.epoch, n, ms}

-- Keeps a node's sessions alive, and stores how far each client is known to have received.
--
-- KEYS  log, meta, closes, then the session records
-- ARGV  ttl (ms) without a heartbeat, grace (ms), then for each session:
--         token, confirmed, sent ('' = as stored), rooms that were closed (a count), those rooms
-- Returns epoch, n of the last entry of the log, then the indexes (from 1) of the sessions that are
-- gone or belong to another connection

local log = open(KEYS[1], KEYS[2])
local reply = {log.epoch, integer(log.n)}
local at = 3
for i = 4, #KEYS do
  local session, rooms = KEYS[i], tonumber(ARGV[at + 3])
  -- pcall: a key of another type is no session of ours, and must not fail the others
  if redis.pcall('HGET', session, 'token') == ARGV[at] then
    local namespace = redis.call('HGET', session, 'ns')
    if ARGV[at + 1] ~= '' then
      redis.call('HSET', session, 'confirmed', ARGV[at + 1], 'sent', ARGV[at + 2])
    end
    for r = at + 4, at + 3 + rooms do present(session, KEYS[3], namespace, ARGV[r]) end
    if rooms > 0 then sweep(session, log) end
    redis.call('HSET', session, 'deadline', integer(log.now + ARGV[1]))
    redis.call('PEXPIRE', session, integer(ARGV[1] + ARGV[2]))
  else
    reply[#reply + 1] = i - 3
  end
  at = at + 4 + rooms
end
return reply

-- Keeps a node's sessions alive, and stores how far each client is known to have received.
--
-- KEYS  log, meta, closes, owned, then the session records
-- ARGV  ttl (ms) without a heartbeat, grace (ms) a record outlives its deadline, then for each session:
--         token, confirmed, sent ('' = as stored), rooms that were closed (a count), those rooms
-- Returns epoch, n of the last entry of the log, then the indexes (from 1) of the sessions that are
-- gone or belong to another connection; negative if they were adopted

local log = open(KEYS[1], KEYS[2])
local reply = {log.epoch, integer(log.n)}
local at = 3
for i = 5, #KEYS do
  local session, rooms = KEYS[i], tonumber(ARGV[at + 3])
  -- pcall: a key of another type is no session of ours, and must not fail the others
  if redis.pcall('HGET', session, 'token') == ARGV[at] then
    if rooms > 0 then
      local namespace = redis.call('HGET', session, 'ns')
      for r = at + 4, at + 3 + rooms do present(session, KEYS[3], namespace, ARGV[r]) end
      sweep(session, log)
    end
    -- A number beyond the log is of a tail that it has lost, unknown to the node as yet.
    if ARGV[at + 1] ~= '' and tonumber(ARGV[at + 1]) <= log.n then
      own(session, KEYS[4], log.now + ARGV[1], ARGV[2], log.now, 'confirmed', ARGV[at + 1], 'sent', ARGV[at + 2])
    else
      own(session, KEYS[4], log.now + ARGV[1], ARGV[2], log.now)
    end
  else
    local adopted = type(redis.pcall('HGET', session, 'adopted')) == 'string'
    reply[#reply + 1] = adopted and 4 - i or i - 4
  end
  at = at + 4 + rooms
end
return reply

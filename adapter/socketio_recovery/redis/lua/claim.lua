-- Makes a connection the owner of a session, atomically. Asked again with the same token, it answers
-- the same. If another connection may still hold the session, an 'evict' entry tells its node.
--
-- KEYS  session, log, meta, closes, owned, everyone
-- ARGV  namespace, hash of the secret, token, holder (node and transport, as JSON without brackets),
--       the head of an 'evict' entry, but for the old holder and the closing bracket,
--       ttl (ms) without a heartbeat, grace (ms) the record outlives its deadline, for a node to adopt it,
--       the stream id of the entry that the client names as the last it has seen ('' = none),
--       the node's number with a minus sign, the head of an entry about the change
-- Returns 'ok', epoch, n of the last entry of the log (K), ms at which that was stored or later, n of the oldest less
--         one, whether the named entry is there (1 or 0), then the record's fields and values;
--      or 'unknown' | 'expired' | 'epoch' | 'damaged', epoch, K

local session = KEYS[1]
local log = open(KEYS[2], KEYS[3])
local record = {}
local fields = redis.call('HGETALL', session)
for i = 1, #fields, 2 do record[fields[i]] = fields[i + 1] end

local function refuse(why) return {why, log.epoch, integer(log.n)} end

if record.hash ~= ARGV[2] or record.hash == '' then return refuse('unknown') end
if record.adopted then return refuse('expired') end
if record.ns ~= ARGV[1] then return refuse('unknown') end
if record.damaged then return refuse('damaged') end
-- Looked for before an entry is added: that can't be the one which the client has seen.
local seen = 0
if ARGV[8] ~= '' then
  local entry = redis.call('XRANGE', log.key, ARGV[8], ARGV[8])[1]
  if entry and entry[2][1] == 'epoch' and entry[2][2] == log.epoch then seen = 1 end
end
if record.token ~= ARGV[3] then
  if log.now > tonumber(record.deadline) then return refuse('expired') end
  if record.epoch ~= log.epoch then return refuse('epoch') end
  if record.holder ~= '' then
    add(log, 'head', ARGV[5] .. ',' .. record.holder .. ']')
    close(log)
  end
  -- 'was' and 'was_since' are what to go back to, should the claim not end in a recovery.
  redis.call('HSET', session, 'token', ARGV[3], 'open', record.open .. ARGV[3] .. ' ', 'holder', ARGV[4],
    'was', record.deadline, 'was_since', record.since or '0', 'since', integer(log.now))
  own(session, KEYS[5], math.max(tonumber(record.deadline), log.now + ARGV[6]), ARGV[7], log.now)
  redis.call('HINCRBY', session, 'claims', 1)
  set_state(KEYS[6], sid_of(session), ARGV[9], log.now)
  if watched(KEYS[3], log.now) then note_change(log, ARGV[10]) end
end
for field in pairs(record) do
  local room = string.match(field, '^r:(.*)$')
  if room then present(session, KEYS[4], ARGV[1], room) end
end
sweep(session, log)
local reply = {'ok', log.epoch, integer(log.n), integer(log.stored), integer(floor(log)), seen}
for _, value in ipairs(redis.call('HGETALL', session)) do reply[#reply + 1] = value end
return reply

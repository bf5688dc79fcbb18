-- Appends a batch of entries, each with its effect on a session's record, in one step.
--
-- A batch that is stored already, because its reply was lost, is answered as it was. One that is sent again is not
-- stored in another epoch than the one it was first sent in: what the producer had stored was lost with that epoch, and
-- clients may have seen the batch.
--
-- KEYS  log, meta, producer, closes, closed, then the session records the batch touches
-- ARGV  sequence  number of the first entry among this producer's
--       epoch     in which the batch was first sent; '' if it is sent for the first time
--       retention (ms) used when no node has set one, 0 = don't trim; max_length (entries, 0 = no cap)
--       count     entries that follow
--       shards    how many partitions the caller has
--       then for each entry:
--         fields (a count), then that many names and values for the stream
--         action  '' | 'enter' | 'leave' | 'close' | 'end'
--           enter, leave: record (index in KEYS), namespace, room, room's record (index in KEYS, 0 = none),
--                         everyone, the room's set (indexes in KEYS)
--           close:        namespace, room, the room's set (index in KEYS)
--           end:          record, everyone (indexes in KEYS)
-- Returns epoch, n of the last entry of the log, the ms of the entries that it stored (0 = none), then pairs (index of a
--   refused entry, reason):
--   'unknown' no such session; 'sid' the room is a session's own; 'same' nothing to change; 'failed: ...';
--   index 0, 'epoch' or 'shards': nothing was stored now, because the epoch, or the number of partitions, is another;
--   or, of an entry that is stored: 'left', then the rooms in which the session that it ended is still counted, each
--   after a byte 31, which JSON does not hold: the caller then calls place.lua

local log = open(KEYS[1], KEYS[2])
local producer = KEYS[3]
local sequence, count = tonumber(ARGV[1]), tonumber(ARGV[5])
local retention, max_length = log.retention or tonumber(ARGV[3]), tonumber(ARGV[4])
local closes, closed = KEYS[4], KEYS[5]
local arguments = {[''] = 0, enter = 6, leave = 6, close = 3, ['end'] = 2}

local reply = {log.epoch, integer(log.n), '0'}
local known = redis.call('HMGET', producer, 'sequence', 'refused', 'kept')
local stored = tonumber(known[1] or 0)
if stored >= sequence + count - 1 then
  for word in string.gmatch(known[2], '[^\n]+') do reply[#reply + 1] = word end
  return reply
end

if log.shards ~= ARGV[6] and log.shards ~= UNDIVIDED then return {log.epoch, integer(log.n), '0', '0', 'shards'} end
if ARGV[2] ~= '' and ARGV[2] ~= log.epoch then return {log.epoch, integer(log.n), '0', '0', 'epoch'} end

-- Notes that a room was closed at n, unless nobody has entered it since it was closed before. Drops a few of the closings
-- that are older than every record which they could still concern.
local function note_close(field, n)
  local lifetime = retention > 0 and retention * 2 or 3600000
  local old = redis.call('ZRANGEBYSCORE', closed, '-inf', integer(log.now - lifetime), 'LIMIT', 0, 4)
  for _, member in ipairs(old) do
    local number, room = string.match(member, '^(%d+) (.*)$')
    local kept = {}
    for other in string.gmatch(redis.call('HGET', closes, room) or '', '%S+') do
      if other ~= number then kept[#kept + 1] = other end
    end
    if string.match(kept[1] or '', '%d') then
      redis.call('HSET', closes, room, table.concat(kept, ' '))
    else
      redis.call('HDEL', closes, room)
    end
    redis.call('ZREM', closed, member)
  end
  local before = redis.call('HGET', closes, field)
  if before and not entered_since(before) then return end
  redis.call('HSET', closes, field, before and (string.gsub(before, '%+', n)) or n)
  redis.call('ZADD', closed, integer(log.now), n .. ' ' .. field)
  redis.call('PEXPIRE', closes, integer(lifetime))
  redis.call('PEXPIRE', closed, integer(lifetime))
end

-- Enters or leaves a room; returns why not, if refused.
local function move(action, first, last)
  local session, namespace, room = KEYS[tonumber(ARGV[last + 2])], ARGV[last + 3], ARGV[last + 4]
  local room_record = KEYS[tonumber(ARGV[last + 5])]
  local everyone, members = KEYS[tonumber(ARGV[last + 6])], KEYS[tonumber(ARGV[last + 7])]
  if redis.call('HGET', session, 'ns') ~= namespace then return 'unknown' end
  if room_record and redis.call('HGET', room_record, 'ns') == namespace then return 'sid' end
  local entered = present(session, closes, namespace, room)
  if (action == 'enter') == (entered ~= nil) then return 'same' end
  local n = integer(add(log, unpack(ARGV, first, last)))
  if action == 'enter' then
    redis.call('HSET', session, 'r:' .. room, n)
    local closings = redis.call('HGET', closes, namespace .. '\n' .. room)
    if closings and not entered_since(closings) then
      redis.call('HSET', closes, namespace .. '\n' .. room, closings .. ' +')
    end
    local state = redis.call('ZSCORE', everyone, sid_of(session))
    if state then set_state(members, sid_of(session), state, log.now) end
  else
    end_stay(session, room, entered, n)
    redis.call('ZREM', members, sid_of(session))
  end
  sweep(session, log)
end

-- Ends a session. Its rooms' sets are not known here; returns their names, if it has no connection that leaves them.
local function end_session(session, everyone)
  local token = redis.call('HGET', session, 'token')
  if token == '' then
    local left = {'left'}
    for _, field in ipairs(redis.call('HKEYS', session)) do
      left[#left + 1] = string.match(field, '^r:(.*)$')
    end
    redis.call('DEL', session)
    redis.call('ZREM', everyone, sid_of(session))
    return left[2] and table.concat(left, '\31')
  elseif token then  -- its owner, or if that is dead who adopts it, runs the disconnect handler first
    redis.call('HSET', session, 'hash', '')
  end
end

-- Stores an entry, ARGV[first] to ARGV[last]; returns why not, if refused, or what its caller has to know.
local function store(action, first, last)
  if action == 'enter' or action == 'leave' then return move(action, first, last) end
  local n = add(log, unpack(ARGV, first, last))
  if action == 'close' then
    note_close(ARGV[last + 2] .. '\n' .. ARGV[last + 3], integer(n))
    redis.call('DEL', KEYS[tonumber(ARGV[last + 4])])
  elseif action == 'end' then
    return end_session(KEYS[tonumber(ARGV[last + 2])], KEYS[tonumber(ARGV[last + 3])])
  end
end

local had = log.n
local refusals = {}
local at = 7
for i = 1, count do
  local last = at + tonumber(ARGV[at])
  local action = ARGV[last + 1]
  local ok, refused = true, nil
  if sequence + i - 1 > stored then
    -- What goes wrong with one entry must not leave the others, and the log's own state, half-written.
    ok, refused = pcall(store, action, at + 1, last)
  end
  if not ok then refused = 'failed: ' .. tostring(type(refused) == 'table' and refused.err or refused) end
  if refused then
    refusals[#refusals + 1] = integer(i)
    refusals[#refusals + 1] = string.gsub(refused, '\n', ' ')
  end
  at = last + 2 + arguments[action]
end
close(log)
redis.call('HSET', producer, 'sequence', integer(sequence + count - 1), 'refused', table.concat(refusals, '\n'))
-- For longer than any outage across which a batch may be sent again.
local lifetime = math.max(retention * 4, 86400000)
if log.now - tonumber(known[3] or 0) > lifetime / 4 then
  redis.call('HSET', producer, 'kept', integer(log.now))
  redis.call('PEXPIRE', producer, integer(lifetime + lifetime / 4))
end
trim(log, had, retention, max_length)
return {log.epoch, integer(log.n), log.n > had and integer(log.ms) or '0', unpack(refusals)}

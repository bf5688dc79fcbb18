-- A node says that it lives, and learns which nodes there are.
--
-- The hash "nodes" has for each node: <number> <ms of its last heartbeat> <lease> <ttl>, the last two in ms. After the
-- lease it counts as dead, and its sessions as waiting for their clients; after the ttl they are over.
--
-- KEYS  nodes, meta
-- ARGV  name, number, lease (ms; '' = the node has no sessions any more and is to be forgotten), ttl (ms),
--       for how long (ms) changes of sessions are to be written to the log, 0 = nobody watches them here
-- Returns Redis's time (ms), since when (ms) changes have been written without a break (0 = nobody watches),
-- then names and values of the nodes

local now = clock()

-- While Redis is away no node can say that it lives, so that time counts for none of them. A node that was there before
-- sees it: all have been silent for longer than its lease. (A node that is new sees the same when all others died.)
local function skip_silence()
  local function at(value) return tonumber(string.match(value or '', '^%S+ (%d+) ')) end
  local mine = at(redis.call('HGET', KEYS[1], ARGV[1]))
  if not mine or mine + ARGV[3] >= now then return end
  local nodes, latest = redis.call('HGETALL', KEYS[1]), 0
  for i = 2, #nodes, 2 do latest = math.max(latest, at(nodes[i]) or 0) end
  if latest + ARGV[3] >= now then return end
  for i = 2, #nodes, 2 do
    local number, before, rest = string.match(nodes[i], '^(%S+) (%d+) (%d+ %d+)$')
    if number then
      redis.call('HSET', KEYS[1], nodes[i - 1], number .. ' ' .. integer(before + now - latest) .. ' ' .. rest)
    end
  end
end

if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  skip_silence()
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. integer(now) .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
end
if ARGV[5] ~= '0' then
  if not watched(KEYS[2], now) then redis.call('HSET', KEYS[2], 'watched_since', integer(now)) end
  redis.call('HSET', KEYS[2], 'watched', integer(now + ARGV[5]))
end
local reply = {integer(now), redis.call('HGET', KEYS[2], 'watched_since') or '0'}
local nodes = redis.call('HGETALL', KEYS[1])
for i = 1, #nodes, 2 do
  local at, ttl = string.match(nodes[i + 1], '^%S+ (%d+) %d+ (%d+)$')
  -- Its sessions are over, and were so for a day: nobody asks any more.
  if not at or at + ttl + 86400000 < now then
    redis.call('HDEL', KEYS[1], nodes[i])
  else
    reply[#reply + 1] = nodes[i]
    reply[#reply + 1] = nodes[i + 1]
  end
end
return reply

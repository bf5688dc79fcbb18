-- How many are in a namespace or in a room, by their state. It does not look at each. Changes nothing.
--
-- KEYS  nodes, the set
-- Returns how many are connected, and how many are reconnecting

local now = clock()
local connected, reconnecting = 0, redis.call('ZCOUNT', KEYS[2], integer(now), '+inf')
local nodes = redis.call('HGETALL', KEYS[1])
for i = 2, #nodes, 2 do
  local number, at, lease, ttl = string.match(nodes[i], '^(%d+) (%d+) (%d+) (%d+)$')
  if number and at + ttl >= now then
    local count = redis.call('ZCOUNT', KEYS[2], '-' .. number, '-' .. number)
    if at + lease >= now then connected = connected + count else reconnecting = reconnecting + count end
  end
end
return {connected, reconnecting}

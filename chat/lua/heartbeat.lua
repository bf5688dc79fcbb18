-- A node tells how it is, and learns how the others are.
--
-- KEYS: nodes (hash), the people's version, how clients came (hash), the order to kill this node
-- ARGV: the node's name, its record as JSON, what to add to how clients came as JSON
-- Returns {now in ms, version, nodes, outcomes, "1" if this node is to be killed}.
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
local node = cjson.decode(ARGV[2])
node.at = ms
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(node))
for outcome, more in pairs(cjson.decode(ARGV[3])) do redis.call('HINCRBY', KEYS[3], outcome, more) end
return {
  string.format('%.0f', ms),
  redis.call('GET', KEYS[2]) or '0',
  redis.call('HGETALL', KEYS[1]),
  redis.call('HGETALL', KEYS[3]),
  redis.call('GETDEL', KEYS[4]) or '',
}

-- Stores how a node is, and returns how all nodes are.
--
-- KEYS: 1 the nodes (hash: name -> record as JSON)
--       2 the outcomes of connecting (hash: outcome -> how often)
--       3 the order to kill this node (exists or not)
-- ARGV: 1 the node's name, 2 its record as JSON, 3 what to add to the outcomes as JSON
-- Returns {Redis's time in ms, nodes, outcomes, "1" if there was an order to kill this node, else ""};
-- nodes and outcomes are flat lists of fields and values. The order to kill is removed.
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
local node = cjson.decode(ARGV[2])
node.at = ms
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(node))
for outcome, more in pairs(cjson.decode(ARGV[3])) do redis.call('HINCRBY', KEYS[2], outcome, more) end
return {
  string.format('%.0f', ms),
  redis.call('HGETALL', KEYS[1]),
  redis.call('HGETALL', KEYS[2]),
  redis.call('GETDEL', KEYS[3]) or '',
}

-- Says who takes over the inbox: one node at a time, so that an entry does not wake all of them.
--
-- Nothing depends on it but the number of nodes that look: take.lua takes an entry once, whoever runs it.
--
-- KEYS  taker
-- ARGV  node (its name), lease (ms); 0 gives up what the node has
-- Returns 1 if the node has the lease now, else 0

local node = redis.call('HGET', KEYS[1], 'node')
if node and node ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('HSET', KEYS[1], 'node', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1

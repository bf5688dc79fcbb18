-- Says which node does what one node at a time does: taking over the inbox, so that an entry does not wake all nodes.
--
-- Nothing depends on it but how many nodes do the work: it is right, too, if two of them do it.
--
-- KEYS  lease
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

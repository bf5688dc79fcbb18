-- Names sessions whose deadline passed while they had an owner, and keeps them from other nodes for a while.
--
-- KEYS  owned
-- ARGV  most (a count), lease (ms)
-- Returns keys of session records

local now = clock()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', integer(now), 'LIMIT', 0, ARGV[1])
for _, session in ipairs(due) do redis.call('ZADD', KEYS[1], integer(now + ARGV[2]), session) end
return due

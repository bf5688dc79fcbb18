-- Names sessions whose deadline passed while they had an owner, and which no heartbeat has kept since they were first
-- asked for. (After an outage, or when Redis's clock was set, all deadlines may have passed; owners that live say so.)
--
-- A score that ends in .5 says that the session is in doubt: a heartbeat replaces it by a whole number.
--
-- KEYS  owned
-- ARGV  most (a count), lease (ms): how long heartbeats have, and how long others are not given the same
-- Returns how many were looked at, then keys of session records

local now = clock()
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', integer(now), 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local due = {#found / 2}
for i = 1, #found, 2 do
  if tonumber(found[i + 1]) % 1 ~= 0 then due[#due + 1] = found[i] end
  redis.call('ZADD', KEYS[1], integer(now + ARGV[2]) .. '.5', found[i])
end
return due

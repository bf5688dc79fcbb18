-- Changes the record of a person, if it is still the one that is meant.
--
-- KEYS: people (hash), their version
-- ARGV: the person's id, "put" or "change" or "lost" or "gone", the connection that is meant, fields as JSON
-- Returns {1 if it was changed, the record as it was}.
local id, what, conn = ARGV[1], ARGV[2], ARGV[3]
local json = redis.call('HGET', KEYS[1], id)
local person = json and cjson.decode(json)
if what ~= 'put' and not (person and person.conn == conn) then return {0, json or ''} end
if what == 'gone' then
  redis.call('HDEL', KEYS[1], id)
elseif what == 'lost' then
  if person.lost ~= 0 then return {0, json} end
  local time = redis.call('TIME')
  person.lost = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[1], id, cjson.encode(person))
elseif what == 'put' then
  redis.call('HSET', KEYS[1], id, ARGV[4])
else
  for name, value in pairs(cjson.decode(ARGV[4])) do person[name] = value end
  redis.call('HSET', KEYS[1], id, cjson.encode(person))
end
redis.call('INCR', KEYS[2])
return {1, json or ''}

-- Changes the record of a person. Except for "put", only if the record belongs to the connection that is named.
--
-- KEYS: 1 the people (hash: id -> record as JSON), 2 the version of their records (grows with each change)
-- ARGV: 1 the person's id
--       2 "put" to store a new record, "again" to store it again, also if there is none,
--         "change" to change some fields of it,
--         "lost" to note that the connection was lost (unless that is noted already), "gone" to remove the record
--       3 the id of the connection that the record must belong to
--       4 the record for "put" and "again", the fields for "change", as JSON
-- Returns {1 if the record was changed, else 0; the record as it was before, "" if there was none}.
local id, what, conn = ARGV[1], ARGV[2], ARGV[3]
local json = redis.call('HGET', KEYS[1], id)
local person = json and cjson.decode(json)
local may = what == 'put' or (person and person.conn == conn) or (what == 'again' and not person)
if not may then return {0, json or ''} end
if what == 'gone' then
  redis.call('HDEL', KEYS[1], id)
elseif what == 'lost' then
  if person.lost ~= 0 then return {0, json} end
  local time = redis.call('TIME')
  person.lost = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[1], id, cjson.encode(person))
elseif what == 'put' or what == 'again' then
  redis.call('HSET', KEYS[1], id, ARGV[4])
else
  for name, value in pairs(cjson.decode(ARGV[4])) do person[name] = value end
  redis.call('HSET', KEYS[1], id, cjson.encode(person))
end
redis.call('INCR', KEYS[2])
return {1, json or ''}

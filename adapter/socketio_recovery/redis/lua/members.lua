-- Who is in a namespace, or in any of some rooms, and in which state: as of one position of the log. Changes nothing.
--
-- KEYS  meta, nodes, everyone, then the sets of rooms; none = everybody in the namespace
-- ARGV  for each room its name, if it may be that of a session's own room, else ''
-- Returns epoch ('' = there is no log), n of the last entry of the log, Redis's time (ms),
--         names and values of the nodes (a list), then for each set a list: sid, score, sid, score, ...

local at = redis.call('HMGET', KEYS[1], 'epoch', 'n')
local reply = {at[1] or '', at[2] or '0', integer(clock()), redis.call('HGETALL', KEYS[2])}
if #KEYS == 3 then reply[5] = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '+inf', 'WITHSCORES') end
for i = 4, #KEYS do
  local members = {}
  -- A session that has just returned may still have the score before in the room.
  local function look(sid)
    local score = redis.call('ZSCORE', KEYS[3], sid)
    if score then
      members[#members + 1] = sid
      members[#members + 1] = score
    end
  end
  for _, sid in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', '+inf')) do look(sid) end
  if ARGV[i - 3] ~= '' then look(ARGV[i - 3]) end
  reply[#reply + 1] = members
end
return reply

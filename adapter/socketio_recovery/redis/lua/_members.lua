-- Who is in which room, for questions; in front of the scripts that change it.
--
-- "everyone" is a sorted set for each namespace, with the sid of each session. The score says how the session is:
--   below 0   it belongs to a connection of the node with that number (see node_heartbeat.lua), less its sign
--   above 0   it waits for its client until then (ms, Redis's time)
-- Each room has a sorted set of its members, with the scores that "everyone" has for them. So the members of a room can
-- be counted by their state without a look at each. What events do is not decided by these sets, but by the log and by
-- the session records.
--
-- A script that ends a connection changes the score in all rooms of the session, which its caller has to name. If the
-- record has others, because the session has entered them just now, the script changes nothing and says which: its
-- caller calls it again. A claim is answered with the rooms, and place.lua then sets the score in them.

local function sid_of(session)
  return string.match(session, '^{.*}:session:(.*)$')
end

-- A set without a connected member is dropped when the last of its members is over, and a minute has passed: a claim may
-- be under way. One with a connected member is kept.
local MINUTE = 60000

local function keep(set, score, now)
  if tonumber(score) < 0 then
    redis.call('PERSIST', set)
    return
  end
  redis.call('ZREMRANGEBYSCORE', set, 1, integer(now - MINUTE))
  if redis.call('ZCOUNT', set, '-inf', 0) == 0 then
    local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2] or now
    redis.call('PEXPIRE', set, integer(math.max(tonumber(last) - now, 0) + MINUTE))
  end
end

local function set_state(everyone, sid, score, now)
  redis.call('ZADD', everyone, score, sid)
  keep(everyone, score, now)
end

-- Gives a session, in the rooms KEYS[first] and those that follow, the score that it has in everyone.
local function place(everyone, sid, first, now)
  if first > #KEYS then return end
  local score = redis.call('ZSCORE', everyone, sid)
  for i = first, #KEYS do
    if not score then
      redis.call('ZREM', KEYS[i], sid)
    elseif redis.call('ZSCORE', KEYS[i], sid) then
      redis.call('ZADD', KEYS[i], score, sid)
      keep(KEYS[i], score, now)
    end
  end
end

-- The rooms in a session's record that are not among KEYS[first] and those that follow. A room's set is named
-- <prefix><room><suffix>.
local function unnamed(session, prefix, suffix, first)
  local named, found = {}, {}
  for i = first, #KEYS do named[KEYS[i]] = true end
  for _, field in ipairs(redis.call('HKEYS', session)) do
    local room = string.match(field, '^r:(.*)$')
    if room and not named[prefix .. room .. suffix] then found[#found + 1] = room end
  end
  return found
end

-- Whether somebody watches who comes and goes: then an entry of the log tells each change.
local function watched(meta, now)
  return tonumber(redis.call('HGET', meta, 'watched') or 0) > now
end

local function note_change(log, head)
  add(log, 'head', head)
  close(log)
end

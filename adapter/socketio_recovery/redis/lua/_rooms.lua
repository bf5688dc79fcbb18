-- Rooms in a session's record; in front of the scripts that read or change them.
--
-- A stay is (room, entered, left): the session is in the room at n when entered <= n < left.
-- The record holds present stays as   r:<room>         = entered
-- and past stays as                   g:<left>:<room>  = entered
-- until the log no longer reaches back to them. <room> is JSON, and data only.
--
-- Closing a room ends the stays of members that the script cannot know. It is noted once, in the hash
-- "closes" (<namespace>\n<room> = "n1 n2 ...", with a "+" at its end if a session has entered the room since), and
-- settled in each record when the record is next read. The sorted set "closed" has the same by time
-- ("<n> <namespace>\n<room>", ms), so that what is older than every record is dropped.

local function entered_since(closings)
  return string.sub(closings, -1) == '+'
end

local function closed_after(closes, namespace, room, entered)
  local list = redis.call('HGET', closes, namespace .. '\n' .. room)
  local first
  for n in string.gmatch(list or '', '%d+') do
    if tonumber(n) > entered and (not first or tonumber(n) < tonumber(first)) then first = n end
  end
  return first
end

local function end_stay(session, room, entered, left)
  redis.call('HDEL', session, 'r:' .. room)
  redis.call('HSET', session, 'g:' .. left .. ':' .. room, entered)
end

-- The position at which the session entered the room it is in now, or nil.
local function present(session, closes, namespace, room)
  local entered = redis.call('HGET', session, 'r:' .. room)
  if not entered then return nil end
  local left = closed_after(closes, namespace, room, tonumber(entered))
  if left then
    end_stay(session, room, entered, left)
    return nil
  end
  return entered
end

-- Drops past stays that no replay can reach: a claim says where the log begins, and nobody recovers from before that.
-- Runs when the record has doubled since the last time.
local function sweep(session, log)
  local size = redis.call('HLEN', session)
  if size < tonumber(redis.call('HGET', session, 'sweep') or 64) then return end
  local oldest = floor(log)
  for _, field in ipairs(redis.call('HKEYS', session)) do
    local left = string.match(field, '^g:(%d+):')
    if left and tonumber(left) <= oldest then redis.call('HDEL', session, field) end
  end
  redis.call('HSET', session, 'sweep', redis.call('HLEN', session) * 2 + 64)
end

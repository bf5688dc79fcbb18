-- Who owns a session; in front of the scripts that change it.
--
-- "token" names the connection that owns the session. "open" holds the tokens, oldest first and each with a space
-- after it, of all connections whose disconnect handler may still have to run: the owner's, and those it took the
-- session from until they say that theirs has run. A claim that fails gives the session back to the one before.
--
-- Sessions with an owner are listed by their deadline, in the sorted set "owned". Where the deadline passes the
-- owner's node is dead, and the handler is for another node to run (due.lua, adopt.lua).

-- Sets the deadline (ms, Redis's time) of a session that has an owner, and other fields with it. The record outlives it
-- by grace (ms).
local function own(session, owned, deadline, grace, now, ...)
  redis.call('HSET', session, 'deadline', integer(deadline), ...)
  redis.call('ZADD', owned, integer(deadline), session)
  redis.call('PEXPIRE', session, integer(deadline - now + grace))
end

-- The tokens before and after one of them; nil if it is not among them.
local function around(session, token)
  local open = redis.call('HGET', session, 'open') or ''
  local first, last = string.find(open, token .. ' ', 1, true)
  if first then return string.sub(open, 1, first - 1), string.sub(open, last + 1) end
end

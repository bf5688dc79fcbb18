-- Gives a session, in some rooms, the state that it has in its namespace. See _members.lua.
--
-- KEYS  everyone, then the sets of rooms
-- ARGV  sid

place(KEYS[1], ARGV[1], 2, clock())
return 1

-- Notes how far the publish/subscribe bridge came, and publishes what belongs to that, in one step. So each entry of the
-- log is published once, whichever node does it, and whenever nodes die.
--
-- KEYS  pubsub
-- ARGV  field ('published': the id of the last entry of the log that was published; 'mark': the mark in the channel from
--       which on messages are appended), from (what it is; '' = nothing yet), to, lifetime (ms) of the notes,
--       channel, then messages
-- Returns what the field is; nothing was done if it is not `to`

local noted = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if noted ~= ARGV[2] then return noted end
for i = 6, #ARGV do redis.call('PUBLISH', ARGV[5], ARGV[i]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return ARGV[3]

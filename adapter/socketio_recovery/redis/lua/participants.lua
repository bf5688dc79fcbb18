-- What some sessions' records say to those who ask who is there. Changes nothing.
--
-- KEYS  closes, nodes, everyone, then the session records
-- Returns Redis's time (ms), names and values of the nodes (a list), then for each session a list: its score,
--         holder (the node and transport that it has or had last, as JSON without brackets), since (ms), deadline (ms),
--         data, then its rooms; an empty list if it is over or in another namespace

local reply = {integer(clock()), redis.call('HGETALL', KEYS[2])}
for i = 4, #KEYS do
  local found = {}
  local score = redis.call('ZSCORE', KEYS[3], sid_of(KEYS[i]))
  local fields = score and redis.pcall('HGETALL', KEYS[i]) or {}  -- an error if it is no record
  local record, rooms = {}, {}
  for f = 1, #fields, 2 do
    local room = string.match(fields[f], '^r:(.*)$')
    if room then rooms[#rooms + 1] = {room, fields[f + 1]} else record[fields[f]] = fields[f + 1] end
  end
  if record.ns and record.deadline and not record.adopted then
    local holder = record.holder ~= '' and record.holder or record.last or ''
    found = {score, holder, record.since or '0', record.deadline, record.data or '{}'}
    for _, room in ipairs(rooms) do
      if not closed_after(KEYS[1], record.ns, room[1], tonumber(room[2]) or 0) then found[#found + 1] = room[1] end
    end
  end
  reply[#reply + 1] = found
end
return reply

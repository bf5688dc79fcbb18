-- Appends a batch that is one entry without an action, as append.lua does, for which this runs first.
--
-- An emit that is awaited before the next one is such a batch. Making the functions that the scripts share, and that an
-- action needs, takes a third of its time in Redis; so it is done here without them. Whatever else may have to be done
-- (begin a log, trim it, answer a batch that is stored already, keep the producer's key) is left to append.lua.

if ARGV[5] == '1' and ARGV[2] == '' and ARGV[8 + ARGV[7]] == '' then
  local call = redis.call
  local log = call('HMGET', KEYS[2], 'epoch', 'n', 'ms', 'shards')
  local producer = call('HMGET', KEYS[3], 'sequence', 'kept')
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local n, ms, sequence = tonumber(log[2]), tonumber(log[3]), ARGV[1]
  if n and log[4] == ARGV[6] and producer[2] and tonumber(producer[1]) < tonumber(sequence)
    and now - ms < 1000 and n % 50 ~= 49 and now - producer[2] < 3600000 then
    n, ms = string.format('%.0f', n + 1), string.format('%.0f', math.max(now, ms))
    local id = redis.pcall('XADD', KEYS[1], ms .. '-' .. n, 'epoch', log[1], unpack(ARGV, 8, 7 + ARGV[7]))
    if type(id) == 'string' then
      call('HSET', KEYS[2], 'n', n, 'ms', ms)
      call('HSET', KEYS[3], 'sequence', sequence, 'refused', '')
      return {log[1], n, ms}
    end
  end
end

-- Forgetting an agent: what Redis has of it goes at one moment, and the log says which: an entry 'F' that names nobody. It
-- stays until it is flushed, so that whoever waits for entries before it that are erased sees the flush come past them. What
-- is stamped after that moment is of another life and stays. PostgreSQL has the tombstone first (see tiering/forgetting.py); flushes drop what lies below it.
--
-- The shard's `forgotten` is a hash, agent to stamp (8 bytes): who read something before that moment is refused when it
-- brings it back after. An hour later nobody is on the way any more, and the next to be forgotten sweeps it.

local REMEMBERED_MS = 3600000
local SWEPT = 100
local NOBODY = ZERO .. ZERO

local function sweep_forgotten(forgotten, now)
  local before = pack_stamp(math.max(math.floor(now / 1000) - REMEMBERED_MS, 0), 0)
  local page = redis.call('HSCAN', forgotten, '0', 'COUNT', SWEPT)
  for i = 1, #page[2], 2 do
    if not stamp_after(page[2][i + 1], before) then redis.call('HDEL', forgotten, page[2][i]) end
  end
end

local function last_id(log)
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

-- banshee1_forget: drops an agent, all at once, and says at which stamp that was. Its entries in the log stay: the caller
-- erases them (erase_entries), and a flush drops them.
--   KEYS   state, messages, events, index, log, accesses, wanted, forgotten, then one memory for each member
--   ARGV   agent (16 bytes), the stamp of its tombstone as an id, up to 1000 members (of the index, and whatever else is known)
--   reply  [id, keys dropped, now]; id is '' where the index names others: some memories went, call again with those
--   errors BANSHEE_INVALID, BANSHEE_UNSEEDED
redis.register_function {
  function_name = 'banshee1_forget',
  callback = function(KEYS, ARGV)
    local agent, floor = ARGV[1], stamp_in_id(ARGV[2])
    local index, log, accesses, wanted, forgotten = KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
    if not is_agent(agent) then return invalid('agent: not 16 bytes') end
    if not floor then return invalid('stamp: not <ms>-<seq>') end
    if #KEYS - 8 ~= #ARGV - 2 or #ARGV > 1002 then return invalid('members: not one a key, or over 1000') end
    if redis.call('EXISTS', log) == 0 then return UNSEEDED end
    -- These fail on a key of another type, before anything is written.
    redis.call('ZCARD', index)
    redis.call('SCARD', accesses)
    redis.call('SCARD', wanted)
    redis.call('HLEN', forgotten)
    -- After a failover the log can be behind PostgreSQL: stamps of the new life lie after the tombstone all the same.
    if stamp_after(floor, stamp_in_id(last_id(log))) then redis.call('XSETID', log, ARGV[2]) end
    local now = now_us()
    redis.call('HSET', forgotten, agent, floor)
    local dropped, accessed = 0, {}
    for i = 3, #ARGV do
      accessed[#accessed + 1] = agent .. ARGV[i]
      forget_name(index, ARGV[i])
    end
    if #accessed > 0 then
      dropped = redis.call('UNLINK', unpack(KEYS, 9))
      redis.call('SREM', accesses, unpack(accessed))
    end
    if redis.call('ZCOUNT', index, 0, '+inf') > 0 then return { '', dropped, now } end
    redis.call('UNLINK', index) -- what it says of types, and the leases on them
    local ms, seq = log_append(log, 'F', NOBODY, '', true)
    dropped = dropped + redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
    redis.call('SREM', wanted, agent)
    redis.call('HSET', forgotten, agent, pack_stamp(ms, seq))
    sweep_forgotten(forgotten, now)
    return { string.format('%.0f-%.0f', ms, seq), dropped, now }
  end,
  flags = { 'allow-oom' },
}

-- These drop what lies at or below a stamp, and give how many keys that concerned.

local function erase_state(state, through)
  local meta = redis.call('HGET', state, 'meta')
  if not meta or stamp_after(string.sub(meta, 1, 8), through) then return 0 end
  return redis.call('UNLINK', state)
end

-- What was accepted by a stamp lies by its time at the front of a list: no record's own time is later than its stamp. Of a
-- list that is very long, only so much of the front is looked at; who looks again goes on with that. (Unless all of that
-- has a time of its own and is of the new life: then what lies behind it stays until the list goes.) Gives also
-- whether it is worth while to look again.
local function erase_history(list, through)
  local header = parse_header(redis.call('LINDEX', list, 0))
  local newest = header and redis.call('LINDEX', list, -1)
  if not header or string.byte(newest) == 255 then return 0, false end
  -- No stamp is larger than both, so where neither is after it the list need not be walked along.
  if not stamp_after(stamp_in(newest), through) and not stamp_after(header.late, through) then
    return redis.call('UNLINK', list), false
  end
  local kept, front = {}, redis.call('LRANGE', list, 1, MOST)
  for _, element in ipairs(front) do
    if stamp_after(stamp_in(element), through) then kept[#kept + 1] = element end
  end
  if #kept == #front then return 0, false end
  header.trims = header.trims + 1
  local every = redis.call('LLEN', list) - 1
  if #front < every then
    redis.call('LTRIM', list, 1 + #front, -1)
    for i = #kept, 1, -1 do redis.call('LPUSH', list, kept[i]) end
    redis.call('LPUSH', list, pack_header(header))
    return 1, true
  end
  -- Behind the old ones, which then go: while its slot migrates, a key that is gone cannot be made again.
  redis.call('RPUSH', list, pack_header(header))
  for first = 1, #kept, CHUNK do
    redis.call('RPUSH', list, unpack(kept, first, math.min(first + CHUNK - 1, #kept)))
  end
  redis.call('LTRIM', list, 1 + every, -1)
  return 1, false
end

-- `moment` (microseconds): a volatile memory has no stamp, it goes if it was stored by then. A lease goes, and what is only
-- known to be absent, but they are nothing that was found.
local function erase_memory(memory, index, accesses, agent, member, through, moment)
  local value = redis.call('GET', memory)
  local mark, found = value and string.sub(value, 1, 1), 0
  if mark == 'T' then
    if parse_memory(value).updated > moment then return 0 end
    found = 1
  elseif mark == 'P' or mark == 'A' then
    local stamp = string.sub(value, 2, 9)
    if stamp_after(stamp, through) then return 0 end
    if stamp ~= ZERO then found = 1 end
  end
  redis.call('UNLINK', memory)
  forget_name(index, member)
  redis.call('SREM', accesses, agent .. member)
  return found
end

-- banshee1_erase_keys: drops what is still there of an agent that was forgotten; what was written since stays.
--   KEYS   state, messages, events, index, accesses, then one memory for each member
--   ARGV   agent (16 bytes), through which stamp as an id, when that was in microseconds, members
--   reply  [how many keys held something that should have been gone, 1: a list is so long that it must be looked at again]
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_erase_keys',
  callback = function(KEYS, ARGV)
    local agent, through, moment = ARGV[1], stamp_in_id(ARGV[2]), number_in(ARGV[3], 0, NEVER)
    if not is_agent(agent) then return invalid('agent: not 16 bytes') end
    if not through then return invalid('stamp: not <ms>-<seq>') end
    if not moment then return invalid('moment: not microseconds since 1970') end
    if #KEYS - 5 ~= #ARGV - 3 then return invalid('members: not one a key') end
    local messages, more_messages = erase_history(KEYS[2], through)
    local events, more_events = erase_history(KEYS[3], through)
    local found = erase_state(KEYS[1], through) + messages + events
    for i = 4, #ARGV do
      found = found + erase_memory(KEYS[i + 2], KEYS[4], KEYS[5], agent, ARGV[i], through, moment)
    end
    return { found, (more_messages or more_events) and 1 or 0 }
  end,
  flags = { 'allow-oom' },
}

-- An entry of the log or of the dead letters says whose it is after the letter in `k`, one of the feed in `a`.
local function is_doomed(entry, agent, through)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  if fields.a == agent then return not stamp_after(stamp_in(fields.e or ZERO), through) end
  local kind = string.sub(fields.k or '', 1, 1)
  if kind == 'F' or string.sub(fields.k or '', 2) ~= agent then return false end
  local stamp = stamp_in_id(fields.id or entry[1])
  return not stamp or not stamp_after(stamp, through)
end

-- banshee1_erase_entries: drops what a stream holds of an agent up to a stamp, some entries at a time.
--   KEYS   log | dead | feed
--   ARGV   agent (16 bytes), through which stamp as an id, the id to go on after ('' to begin), how many entries to look at,
--          of how many bytes (one is looked at whatever its size)
--   reply  [id to go on after ('' = done), dropped]
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_erase_entries',
  callback = function(KEYS, ARGV)
    local agent, through = ARGV[1], stamp_in_id(ARGV[2])
    local most, bytes = number_in(ARGV[4], 1, 100000), number_in(ARGV[5], 1, 2 ^ 40)
    if not is_agent(agent) then return invalid('agent: not 16 bytes') end
    if not through then return invalid('stamp: not <ms>-<seq>') end
    if not most or not bytes then return invalid('most: not a number') end
    local after, dropped = ARGV[3], 0
    while most > 0 and bytes > 0 do
      local page = redis.call('XRANGE', KEYS[1], after == '' and '-' or '(' .. after, '+', 'COUNT', 16)
      for _, entry in ipairs(page) do
        after, most = entry[1], most - 1
        for _, text in ipairs(entry[2]) do bytes = bytes - #text end
        if is_doomed(entry, agent, through) then dropped = dropped + redis.call('XDEL', KEYS[1], entry[1]) end
      end
      if #page < 16 then return { '', dropped } end
    end
    return { after, dropped }
  end,
  flags = { 'allow-oom' },
}

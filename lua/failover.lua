-- What is done on a server that is not the one that was written to last (it was restarted, it was a replica, it is new),
-- before anything of it is read or written:
--   1. Each shard's log is parked, under another name. So every function that writes is refused, as if it were lost.
--   2. What may be stale goes: keys with a TTL (all of them are in PostgreSQL), and of the other lists what the log does not
--      hold. The shard's stats name the server for which that was done.
--   3. What is parked is flushed; then the log is seeded: it is back, with its next stamp after all that PostgreSQL has.
-- Each step names the server that it is meant for, and does nothing on another: while one is recovered, a second may take
-- its place, and somebody else recover that.
-- The shard's stats are a hash:
--   server   the identity of the server for which 1 and 2 were done
--   flushed  the id up to which the shard's log was flushed: where PostgreSQL says less, it went back (`log_again`)

-- Whether this is the server with that identity (see `hot/incarnation.py`).
local function is_here(server)
  local info = redis.call('INFO', 'server', 'replication')
  local process, history = string.match(info, 'run_id:(%w*)') or '', string.match(info, 'master_replid2:(%w*)') or ''
  return server == string.sub(process, 1, 12) .. '.' .. string.sub(history, 1, 12)
end

-- banshee1_park: keeps a shard from being written to until it is seeded.
--   KEYS   log, parked, stats
--   ARGV   the identity of this server
--   reply  1 | 0 (nothing was done: all that may be stale is gone on this server already) | CHANGED (it is another server)
redis.register_function {
  function_name = 'banshee1_park',
  callback = function(KEYS, ARGV)
    if not is_here(ARGV[1]) then return CHANGED end
    if redis.call('HGET', KEYS[3], 'server') == ARGV[1] then return 0 end
    if redis.call('TYPE', KEYS[1]).ok == 'stream' then redis.call('RENAMENX', KEYS[1], KEYS[2]) end
    return 1
  end,
  flags = { 'allow-oom' },
}

-- banshee1_mentioned: what entries of a log, which are not elements of a list themselves, keep in a list.
--   KEYS   log
--   ARGV   where to begin ('-', or what the last call gave), how many entries to look at
--   reply  [where to go on ('' = done), agent, what it keeps, agent, ...]: '\0' and the id of an amended
--          message, or '\1' and the stamp of what is logged again
redis.register_function {
  function_name = 'banshee1_mentioned',
  callback = function(KEYS, ARGV)
    local count = number_in(ARGV[2], 1, 100000)
    if not count then return invalid('count: not a number') end
    local entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', count)
    local reply = { '' }
    if #entries == count then reply[1] = '(' .. entries[count][1] end
    for _, entry in ipairs(entries) do
      local head, payload = entry[2][2], entry[2][4]
      local kind = head and payload and string.sub(head, 1, 1)
      if kind == 'm' or kind == 'e' then
        reply[#reply + 1], reply[#reply + 2] = string.sub(head, 2), '\1' .. stamp_in(payload)
      elseif kind == 'A' then
        local readable, amendment = pcall(cmsgpack.unpack, payload)
        if readable and type(amendment) == 'table' and type(amendment[1]) == 'string' then
          reply[#reply + 1], reply[#reply + 2] = string.sub(head, 2), '\0' .. amendment[1]
        end
      end
    end
    return reply
  end,
  flags = { 'no-writes', 'allow-oom' },
}

local function is_in(log, element)
  local ms, seq = struct.unpack('>I6I2', stamp_in(element))
  local id = string.format('%.0f-%.0f', ms, seq)
  return #redis.call('XRANGE', log, id, id) > 0
end

local LOOKS = 200 -- keys, and elements of lists, that one call looks at: Redis does nothing else meanwhile

-- Leaves of a list what is not in PostgreSQL: of `most` elements after the first `start`. It is another list from the first
-- of them on, complete from nowhere: readers fetch the rest, and what is about to be offered is refused. Gives how many
-- it looked at, and after which to go on (nil: done). Nobody else changes a list meanwhile; who dies leaves it to be begun again.
local function shed_history(list, log, birth, kept, start, most)
  local header = parse_header(redis.call('LINDEX', list, 0))
  if not header then return 0 end
  if start == 0 then
    header.from_us, header.from_stamp, header.birth, header.trims = NEVER, ZERO, birth, header.trims + 1
    redis.call('LSET', list, 0, pack_header(header))
  end
  local page, gone = redis.call('LRANGE', list, start + 1, start + most), 0
  for i, element in ipairs(page) do
    local readable, id = pcall(id_in, element)
    local is_kept = kept['\1' .. stamp_in(element)] or (readable and id and kept['\0' .. id])
    if not is_kept and not is_in(log, element) then
      redis.call('LSET', list, start + i, '')
      gone = gone + 1
    end
  end
  if gone > 0 then redis.call('LREM', list, gone, '') end
  if #page == most then return #page, start + #page - gone end
  if redis.call('LLEN', list) == 1 then redis.call('DEL', list) end
  return #page
end

-- What the index says of whole types, and the leases on that, may be stale. The names stay: what of them has no value is
-- asked for, and a volatile memory is known by nothing else.
local function shed_index(index)
  return redis.call('ZREMRANGEBYSCORE', index, '-inf', '(0')
end

local function kept_of(text)
  local kept, at = {}, 1
  while at < #text do
    kept[string.sub(text, at + 1, at + string.byte(text, at))] = true
    at = at + 1 + string.byte(text, at)
  end
  return kept
end

-- A volatile memory is nowhere else: it is what it is, whatever server has it.
local function is_volatile(kind, key)
  return kind == 'm' and redis.call('GETRANGE', key, 0, 0) == 'T'
end

-- Lets go of what may be stale of a key; gives whether it went, and what `shed_history` does.
local function shed_key(key, kind, log, birth, kept, start, most)
  if kind == 'i' then return 0 * shed_index(key), 0 end
  local ttl = redis.call('PTTL', key)
  if ttl >= 0 and not is_volatile(kind, key) then return redis.call('UNLINK', key), 0 end
  if ttl == -1 and kind == 'h' then return 0, shed_history(key, log, birth, kept_of(kept), start, most) end
  return 0, 0
end

-- banshee1_shed: lets go of what may be stale, some at a time. Does nothing once it was said (`mark`) that all of the shard is
-- done.
--   KEYS   parked, stats, then keys of agents
--   ARGV   the identity of this server, a birth for lists (8 bytes), how many elements of the first key are done, then for
--          each key two: 's', 'm', 'i' or 'h', and for a list what `mentioned` says that its agent keeps, each after its
--          length (1 byte)
--   reply  [how many keys went, how many keys are done, how many elements of the next one] | CHANGED (it is another server)
redis.register_function {
  function_name = 'banshee1_shed',
  callback = function(KEYS, ARGV)
    local start, gone, looks = number_in(ARGV[3], 0, NEVER), 0, 0
    if not ARGV[2] or #ARGV[2] ~= 8 then return invalid('birth: not 8 bytes') end
    if not start then return invalid('start: not a number') end
    if #ARGV ~= 3 + 2 * (#KEYS - 2) then return invalid('keys: each needs its kind and what is kept') end
    if not is_here(ARGV[1]) then return CHANGED end
    if redis.call('HGET', KEYS[2], 'server') == ARGV[1] then return { 0, #KEYS - 2, 0 } end
    for i = 3, #KEYS do
      if looks >= LOOKS then return { gone, i - 3, 0 } end
      -- A key that somebody broke (another type) must not keep the others.
      local whole, went, looked, on =
        pcall(shed_key, KEYS[i], ARGV[2 * i - 2], KEYS[1], ARGV[2], ARGV[2 * i - 1], start, LOOKS - looks)
      if whole then
        gone, looks = gone + went, looks + 1 + looked
        if on then return { gone, i - 3, on } end
      end
      start = 0
    end
    return { gone, #KEYS - 2, 0 }
  end,
  flags = { 'allow-oom' },
}

-- banshee1_clear: once what was parked is flushed, lets go of the rest that may be stale: keys with a TTL, and where nothing is
-- parked any more also lists without one. (A reader may have brought elements into one that lie above all that was parked, so
-- that no flush made it clean.) A shard that is written to already keeps those.
--   KEYS   log, parked, then keys of agents
--   ARGV   the identity of this server, then for each key 's', 'm', 'i' or 'h'
--   reply  how many keys went | CHANGED (it is another server)
redis.register_function {
  function_name = 'banshee1_clear',
  callback = function(KEYS, ARGV)
    if #ARGV ~= #KEYS - 1 then return invalid('keys: each needs its kind') end
    if not is_here(ARGV[1]) then return CHANGED end
    local gone, carried = 0, redis.call('EXISTS', KEYS[1]) == 0 and redis.call('XLEN', KEYS[2]) == 0
    for i = 3, #KEYS do
      pcall(function()
        local key, kind = KEYS[i], ARGV[i - 1]
        if kind == 'i' then return shed_index(key) end
        if is_volatile(kind, key) then return end
        if (carried and kind == 'h') or redis.call('PTTL', key) >= 0 then gone = gone + redis.call('UNLINK', key) end
      end)
    end
    return gone
  end,
  flags = { 'allow-oom' },
}

-- banshee1_mark: leaves a mark, also on a full server, which could not be drained without.
--   KEYS   stats (what may be stale is gone from the shard; up to where it was flushed) | store (this server is written to)
--   ARGV   'server', the identity of this server | 'flushed', the stamp as an id, the mark that it takes the place of
--   reply  OK | CHANGED (it is another server, or another mark; nothing was done)
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_mark',
  callback = function(KEYS, ARGV)
    local field, value = ARGV[1], ARGV[2]
    if field == 'server' then
      if not is_here(value) then return CHANGED end
    elseif field == 'flushed' then
      if not stamp_in_id(value) then return invalid('stamp: not <ms>-<seq>') end
      if redis.call('HGET', KEYS[1], field) ~= ARGV[3] then return CHANGED end
    else
      return invalid('mark: not server or flushed')
    end
    redis.call('HSET', KEYS[1], field, value)
    return OK
  end,
  flags = { 'allow-oom' },
}

-- banshee1_reached: how far a shard's log came on this server, before it is seeded.
--   KEYS   log, parked        ARGV  none
--   reply  the last id of the parked log (`0-0`: there is none) | nil (the log is there)
redis.register_function {
  function_name = 'banshee1_reached',
  callback = function(KEYS)
    if redis.call('EXISTS', KEYS[1]) == 1 then return false end
    return redis.call('EXISTS', KEYS[2]) == 1 and last_id(KEYS[2]) or '0-0'
  end,
  flags = { 'no-writes', 'allow-oom' },
}

-- banshee1_seed: makes a log that is not there, or brings the parked one back, with its next stamp after all that PostgreSQL
-- has of the shard.
--   KEYS   log, parked, stats
--   ARGV   the last stamp that PostgreSQL has, as an id `<ms>-<seq>`; the identity of this server
--   reply  the last id that the shard's log had on this server (`0-0`: there was none) | nil (the log is there) |
--          CHANGED (it is another server; or there is a parked log from before it came: what may be stale must go first)
redis.register_function {
  function_name = 'banshee1_seed',
  callback = function(KEYS, ARGV)
    local log, parked, stats, server = KEYS[1], KEYS[2], KEYS[3], ARGV[2]
    local stamp = stamp_in_id(ARGV[1] or '')
    if not stamp then return invalid('stamp: not <ms>-<seq>') end
    if not is_here(server) then return CHANGED end
    if redis.call('EXISTS', log) == 1 then return false end
    if redis.call('EXISTS', parked) == 0 then
      local id = redis.call('XADD', log, stamp == ZERO and '0-1' or ARGV[1], 'k', '', 'p', '')
      redis.call('XDEL', log, id)
      redis.call('HSET', stats, 'server', server)
      return '0-0'
    end
    if redis.call('HGET', stats, 'server') ~= server then return CHANGED end
    local last = last_id(parked)
    if stamp_after(stamp, stamp_in_id(last)) then redis.call('XSETID', parked, ARGV[1]) end
    redis.call('RENAME', parked, log)
    return last
  end,
  flags = { 'allow-oom' },
}

-- banshee1_stamp_after: the next stamps of a shard lie after one that PostgreSQL is about to have from elsewhere.
--   KEYS   log
--   ARGV   that stamp as an id
--   reply  OK
--   errors BANSHEE_INVALID, BANSHEE_UNSEEDED
redis.register_function {
  function_name = 'banshee1_stamp_after',
  callback = function(KEYS, ARGV)
    local stamp = stamp_in_id(ARGV[1])
    if not stamp then return invalid('stamp: not <ms>-<seq>') end
    if redis.call('EXISTS', KEYS[1]) == 0 then return UNSEEDED end
    if stamp_after(stamp, stamp_in_id(last_id(KEYS[1]))) then redis.call('XSETID', KEYS[1], ARGV[1]) end
    return OK
  end,
  flags = { 'allow-oom' },
}

-- What PostgreSQL lost when it went back to an earlier time, and Redis still has, is logged again. Nothing doubles: values
-- and records keep their stamps and ids.

local function state_again(state, log, agent, floor)
  local meta = redis.call('HGET', state, 'meta')
  if not meta then return redis.call('DEL', state) * 0 end -- that there is none, PostgreSQL must be asked again
  if not stamp_after(string.sub(meta, 1, 8), floor) then return 0 end
  log_append(log, 'S', agent, '', true)
  redis.call('PERSIST', state)
  return 1
end

local function memory_again(memory, log, agent, floor, accesses, index, member)
  local value = redis.call('GET', memory)
  local mark = string.sub(value, 1, 1)
  if mark == 'T' then return 0 end
  if mark == 'L' or string.sub(value, 1, 9) == 'A' .. ZERO then return redis.call('DEL', memory) * 0 end
  if stamp_after(string.sub(value, 2, 9), floor) then
    log_append(log, 'V', agent, member, true)
    soil(memory, index, member)
    return 1
  end
  local m = parse_memory(value)
  if m and m.count > 0 then
    redis.call('SADD', accesses, agent .. member)
    soil(memory, index, member)
  end
  return 0
end

-- Of some elements after the first `start`; gives how many it logged, and after which to go on ('': done).
local function history_again(list, log, agent, floor, kind, start)
  local header, last = parse_header(redis.call('LINDEX', list, 0)), nil
  if not header then return { 0, '' } end
  local again, page = 0, redis.call('LRANGE', list, start + 1, start + LOOKS)
  for _, element in ipairs(page) do
    if stamp_after(stamp_in(element), floor) and not is_in(log, element) then
      local ms, seq = log_append(log, kind, agent, element, true)
      again, last = again + 1, pack_stamp(ms, seq)
    end
  end
  if last then
    mark_late(list, header, last)
    redis.call('PERSIST', list)
  end
  return { again, #page == LOOKS and string.format('%.0f', start + #page) or '' }
end

-- banshee1_log_again: logs what of a key is stamped after the time to which PostgreSQL went back.
--   KEYS   a key of an agent, log, accesses, index
--   ARGV   agent (16 bytes), 's' (a state), 'm' (a memory), 'i' (the index), 'M' (messages) or 'E' (events), that stamp
--          (8 bytes), member of the memory ('' else), how many elements of a list are done
--   reply  [how many entries it logged, how many elements of a list are done ('': all)]
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_log_again',
  callback = function(KEYS, ARGV)
    local key, log, agent, kind, floor = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
    if not is_agent(agent) then return invalid('agent: not 16 bytes') end
    if not floor or #floor ~= 8 then return invalid('stamp: not 8 bytes') end
    local start = number_in(ARGV[5], 0, NEVER)
    if not start then return invalid('start: not a number') end
    if redis.call('EXISTS', log) == 0 or redis.call('EXISTS', key) == 0 then return { 0, '' } end
    if kind == 'i' then return { shed_index(key) * 0, '' } end
    if kind == 'M' or kind == 'E' then return history_again(key, log, agent, floor, string.lower(kind), start) end
    if redis.call('PTTL', key) < 0 then return { 0, '' } end -- the log has it
    if kind == 's' then return { state_again(key, log, agent, floor), '' } end
    if kind == 'm' then return { memory_again(key, log, agent, floor, KEYS[3], KEYS[4], ARGV[4]), '' } end
    return invalid('kind: not s, m, i, M or E')
  end,
  flags = { 'allow-oom' }, -- what is logged is carried and let go of: a full server could never be drained before
}

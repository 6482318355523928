-- The way to PostgreSQL and back: leases and offers (in), mark-clean and evict (out).

-- banshee1_lease: a reader that missed asks for the right to offer what PostgreSQL will say.
-- The lease lies where the key would be, so whatever creates the key ends it, and it ends by itself after its TTL.
--   KEYS   state | memory | messages | events
--   ARGV   's' | 'm' | 'h', token (8 bytes), TTL in milliseconds
--   reply  RESIDENT (read again) | token to offer with (another reader's, if it was first) | for 'h' the whole list
redis.register_function {
  function_name = 'banshee1_lease',
  callback = function(KEYS, ARGV)
    local key, kind, token, ttl = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
    if not token or #token ~= 8 then return invalid('token: not 8 bytes') end
    if not is_ttl(ttl) then return invalid('ttl: not milliseconds') end
    if kind == 's' then
      local known = redis.call('HMGET', key, 'meta', 'absent', 'lease')
      if known[1] or known[2] then return RESIDENT end
      if known[3] then return known[3] end
      redis.call('HSET', key, 'lease', token)
    elseif kind == 'm' then
      local value = redis.call('GET', key)
      if is_known(value) then return RESIDENT end
      if value then return string.sub(value, 2) end
      redis.call('SET', key, 'L' .. token)
    elseif kind == 'h' then
      if redis.call('EXISTS', key) == 1 then return redis.call('LRANGE', key, 0, -1) end
      redis.call('RPUSH', key, pack_header { from_us = NEVER, from_stamp = ZERO, birth = token, trims = 0, late = ZERO })
    else
      return invalid('kind: not s, m or h')
    end
    redis.call('PEXPIRE', key, ttl)
    if kind == 'h' then return redis.call('LRANGE', key, 0, -1) end
    return token
  end,
}

-- banshee1_offer_state: what PostgreSQL said, if the lease still lives.
--   KEYS   state
--   ARGV   token, TTL in milliseconds, then fields and values as stored ('absent', '1' where there is no state)
--   reply  OK | REFUSED
redis.register_function {
  function_name = 'banshee1_offer_state',
  callback = function(KEYS, ARGV)
    if not is_ttl(ARGV[2]) then return invalid('ttl: not milliseconds') end
    if #ARGV < 4 or #ARGV % 2 == 1 then return invalid('fields: a name without a value') end
    if redis.call('HGET', KEYS[1], 'lease') ~= ARGV[1] then return REFUSED end
    redis.call('HSET', KEYS[1], unpack(ARGV, 3))
    redis.call('HDEL', KEYS[1], 'lease')
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return OK
  end,
}

-- A clean key goes hot_ttl after its last use; a memory also when it expires. 0 or less: it is over already.
local function memory_ttl(value, hot_ttl, now)
  local m = parse_memory(value)
  if not m or m.expires == 0 then return hot_ttl end
  return math.min(hot_ttl, math.ceil((m.expires - now) / 1000))
end

-- banshee1_offer_memory: what PostgreSQL said, if the lease still lives.
--   KEYS   memory, index, forgotten
--   ARGV   token, TTL in milliseconds, member, value, agent (16 bytes)
--   reply  OK | REFUSED
redis.register_function {
  function_name = 'banshee1_offer_memory',
  callback = function(KEYS, ARGV)
    if not is_ttl(ARGV[2]) then return invalid('ttl: not milliseconds') end
    local token, hot_ttl, member, value = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
    if not member or not value then return invalid('value: missing') end
    if not is_agent(ARGV[5]) then return invalid('agent: not 16 bytes') end
    if redis.call('GET', KEYS[1]) ~= 'L' .. token then return REFUSED end
    -- A lease whose name nobody knew outlives the forgetting of its agent; what is offered by it must not.
    local stamp = string.sub(value, 2, 9)
    if stamp ~= ZERO and is_forgotten(KEYS[3], ARGV[5], stamp) then return REFUSED end
    local ttl = memory_ttl(value, hot_ttl, now_us())
    if ttl <= 0 then
      value, ttl = 'A' .. ZERO, hot_ttl
    end
    redis.call('SET', KEYS[1], value, 'PX', ttl)
    settle_member(KEYS[2], member, ttl, now_us())
    return OK
  end,
}

-- banshee1_lease_memories: a reader asks for the right to say what PostgreSQL has of a whole type. The lease lies in the
-- index, and ends as soon as a name of that type leaves it.
--   KEYS   index, memories that it names and the reader found empty
--   ARGV   type ('' = all that begin with no _), token (8 bytes), TTL in milliseconds, members of those memories
--   reply  token to offer with (another reader's, if it was first)
redis.register_function {
  function_name = 'banshee1_lease_memories',
  callback = function(KEYS, ARGV)
    local index, kind, token = KEYS[1], ARGV[1], ARGV[2]
    if not kind or not string.find(kind, '^[a-z0-9_]*$') then return invalid('type: not a type') end
    if not token or #token ~= 8 then return invalid('token: not 8 bytes') end
    if not is_ttl(ARGV[3]) then return invalid('ttl: not milliseconds') end
    if #ARGV ~= #KEYS + 2 then return invalid('members: not one for each memory') end
    local now_ms = math.floor(now_us() / 1000)
    forget_gone(index, now_ms)
    redis.call('ZREMRANGEBYSCORE', index, string.format('(%.0f', -now_ms), '(0')
    for i = 2, #KEYS do
      if not is_known(redis.call('GET', KEYS[i])) then forget_name(index, ARGV[i + 2]) end
    end
    local lease = '?' .. kind .. ':'
    for _, said in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', '(0')) do
      if string.sub(said, 1, #lease) == lease then return string.sub(said, #lease + 1) end
    end
    redis.call('ZADD', index, -(now_ms + ARGV[3]), lease .. token)
    let_go(index, now_ms)
    return token
  end,
}

-- Installs what PostgreSQL said of a memory, or starts the TTL of what is there again. While the lease on its type lives,
-- nobody wrote one that has neither value nor name. Returns whether it was installed.
local function install(memory, index, member, value, hot_ttl, now)
  local there = redis.call('GET', memory)
  local is_new = not is_known(there)
  if is_new then
    if value == '' or redis.call('ZSCORE', index, member) then return false end
    there = value
  elseif redis.call('PTTL', memory) == -1 then
    return false
  end
  local ttl = memory_ttl(there, hot_ttl, now)
  if ttl <= 0 then return false end
  if is_new then
    redis.call('SET', memory, value, 'PX', ttl)
  else
    redis.call('PEXPIRE', memory, ttl)
  end
  redis.call('ZADD', index, math.floor(now / 1000) + ttl, member)
  return is_new
end

-- banshee1_offer_memories: what PostgreSQL said of a type, if the lease still lives.
--   KEYS   index, memories
--   ARGV   type and token of the lease, TTL in milliseconds, '1': with those offered before, these are all that there are
--          (''), then for each memory its member and value ('': it was resident)
--   reply  REFUSED | how many were not there
redis.register_function {
  function_name = 'banshee1_offer_memories',
  callback = function(KEYS, ARGV)
    local index, kind, hot_ttl = KEYS[1], ARGV[1], tonumber(ARGV[3])
    if not is_ttl(ARGV[3]) then return invalid('ttl: not milliseconds') end
    if #ARGV ~= 2 * #KEYS + 2 then return invalid('values: not one for each memory') end
    local lease, now, installed = '?' .. kind .. ':' .. ARGV[2], now_us(), 0
    if not redis.call('ZSCORE', index, lease) then return REFUSED end
    for i = 2, #KEYS do
      local member = ARGV[2 * i + 1]
      if install(KEYS[i], index, member, ARGV[2 * i + 2], hot_ttl, now) then installed = installed + 1 end
      if not redis.call('ZSCORE', index, member) then redis.call('ZREM', index, lease) end
    end
    local now_ms = math.floor(now / 1000)
    if ARGV[4] == '1' and redis.call('ZREM', index, lease) == 1 then
      redis.call('ZADD', index, -(now_ms + hot_ttl), '*' .. kind)
    end
    let_go(index, now_ms)
    return installed
  end,
}

-- Drops from the front of a list what is flushed and over the cap, and lets a list go in which nothing is unflushed.
local function settle_history(list, through, cap, hot_ttl)
  local header = parse_header(redis.call('LINDEX', list, 0))
  if not header then return end
  -- While something of it waits that is not the last element (a late one, an amended one), none of it may go.
  if stamp_after(header.late, through) then return end
  local over, drop = redis.call('LLEN', list) - 1 - cap, 0
  while drop < over do
    local front = redis.call('LRANGE', list, drop + 1, math.min(drop + CHUNK, over))
    local flushed = 0
    for _, element in ipairs(front) do
      if stamp_after(stamp_in(element), through) then break end
      flushed = flushed + 1
      if is_from(element, header.from_us, header.from_stamp) then
        local ms, seq = struct.unpack('>I6I2', element)
        header.from_us, header.from_stamp = time_in(element), pack_stamp(ms, seq + 1)
      end
    end
    drop = drop + flushed
    if flushed < #front then break end
  end
  if drop > 0 then
    header.trims = header.trims + 1
    redis.call('LTRIM', list, drop + 1, -1)
    redis.call('LPUSH', list, pack_header(header))
  end
  local newest = redis.call('LINDEX', list, -1)
  if string.byte(newest) ~= 255 and stamp_after(stamp_in(newest), through) then return end
  redis.call('PEXPIRE', list, hot_ttl)
end

-- A value that lost against another that PostgreSQL has: the next read brings that in. One that was written meanwhile is
-- newer than both, and stays.
local function drop_state(state, stamp)
  local meta = redis.call('HGET', state, 'meta')
  if meta and string.sub(meta, 1, 8) == stamp then redis.call('DEL', state) end
end

local function settle_state(state, stamp, hot_ttl)
  local known = redis.call('HMGET', state, 'meta', 'blind')
  if not known[1] or string.sub(known[1], 1, 8) ~= stamp then return end
  if known[2] then
    redis.call('DEL', state)
  else
    redis.call('PEXPIRE', state, hot_ttl)
  end
end

-- Clean only if nothing was stored and nothing counted since the flush read it.
local function settle_memory(memory, index, accesses, flushed, agent, member, hot_ttl)
  local value = redis.call('GET', memory)
  if not value or string.sub(value, 1, 33) ~= flushed then return end
  redis.call('SREM', accesses, agent .. member)
  local now = now_us()
  local ttl = memory_ttl(value, hot_ttl, now)
  if ttl > 0 then
    redis.call('PEXPIRE', memory, ttl)
  else
    redis.call('DEL', memory)
  end
  settle_member(index, member, ttl, now)
end

local function drop_memory(memory, index, accesses, flushed, agent, member)
  local value = redis.call('GET', memory)
  if not value or string.sub(value, 1, 9) ~= string.sub(flushed, 1, 9) then return end
  redis.call('SREM', accesses, agent .. member)
  redis.call('DEL', memory)
  settle_member(index, member, 0, now_us())
end

-- The list is complete from nowhere then, so that readers ask PostgreSQL.
local function drop_outdated(list, id)
  local header = parse_header(redis.call('LINDEX', list, 0))
  if not header then return end
  for _, element in ipairs(redis.call('LRANGE', list, 1, -1)) do
    local readable, own = pcall(id_in, element)
    if readable and own == id then redis.call('LREM', list, 1, element) end
  end
  header.from_us, header.from_stamp, header.trims = NEVER, ZERO, header.trims + 1
  redis.call('LSET', list, 0, pack_header(header))
end

local SETTLE = {
  -- state: KEYS state; ARGV stamp
  s = { keys = 1, args = 1, run = function(k, a, _, hot_ttl) settle_state(k[1], a[1], hot_ttl) end },
  -- history: KEYS list; ARGV cap
  h = { keys = 1, args = 1, run = function(k, a, through, hot_ttl)
    settle_history(k[1], through, tonumber(a[1]), hot_ttl)
  end },
  -- memory: KEYS memory, index; ARGV agent, member, first 33 bytes of the flushed value
  m = { keys = 2, args = 3, run = function(k, a, _, hot_ttl, accesses)
    settle_memory(k[1], k[2], accesses, a[3], a[1], a[2], hot_ttl)
  end },
  -- a state that PostgreSQL has another of: KEYS state; ARGV stamp
  S = { keys = 1, args = 1, run = function(k, a) drop_state(k[1], a[1]) end },
  -- a memory that PostgreSQL has another of: KEYS memory, index; ARGV agent, member, first 33 bytes of the value
  M = { keys = 2, args = 3, run = function(k, a, _, _, accesses)
    drop_memory(k[1], k[2], accesses, a[3], a[1], a[2])
  end },
  -- a message of which PostgreSQL has a newer emotional context: KEYS list; ARGV id
  o = { keys = 1, args = 1, run = function(k, a) drop_outdated(k[1], a[1]) end },
  -- what leaves a history otherwise (poison, expired): KEYS list; ARGV element
  p = { keys = 1, args = 1, run = function(k, a) redis.call('LREM', k[1], 1, a[1]) end },
  -- what a forgotten agent left, where all of it is at or below its tombstone: KEYS state; ARGV stamp
  fs = { keys = 1, args = 1, run = function(k, a) erase_state(k[1], a[1]) end },
  -- KEYS list; ARGV stamp
  fh = { keys = 1, args = 1, run = function(k, a) erase_history(k[1], a[1]) end },
  -- KEYS memory, index; ARGV agent, member, stamp
  fm = { keys = 2, args = 3, run = function(k, a, _, _, accesses)
    erase_memory(k[1], k[2], accesses, a[1], a[2], a[3], 0)
  end },
  -- a memory that was read and cannot be carried: ARGV agent, member
  x = { keys = 0, args = 2, run = function(_, a, _, _, accesses) redis.call('SREM', accesses, a[1] .. a[2]) end },
}

-- The entries of the log up to the last, which are those that will be trimmed, and the digest of ids and contents.
local function log_range(log, last)
  local entries = redis.call('XRANGE', log, '-', last)
  local parts = {}
  for _, entry in ipairs(entries) do
    parts[#parts + 1] = entry[1]
    for _, text in ipairs(entry[2]) do parts[#parts + 1] = text end
  end
  return entries, redis.sha1hex(table.concat(parts))
end

-- What is ours of an entry goes to the dead letters; somebody else's may have any number of fields.
local function bury(dead, entry, reason)
  local fields = { k = '', p = '' }
  for i = 1, #entry[2], 2 do
    if fields[entry[2][i]] then fields[entry[2][i]] = entry[2][i + 1] end
  end
  redis.call('XADD', dead, '*', 'id', entry[1], 'reason', reason, 'k', fields.k, 'p', fields.p)
end

-- The items of a settlement, each with what to run on which keys and arguments; nil and what is wrong.
local function items_of(KEYS, ARGV, a)
  local items, k = {}, 5
  while a <= #ARGV do
    local kind = SETTLE[ARGV[a]]
    if not kind then return nil, 'item: unknown' end
    if #KEYS < k + kind.keys - 1 or #ARGV < a + kind.args then return nil, 'item: cut short' end
    items[#items + 1] = {
      run = kind.run, keys = { unpack(KEYS, k, k + kind.keys - 1) }, args = { unpack(ARGV, a + 1, a + kind.args) },
    }
    k, a = k + kind.keys, a + 1 + kind.args
  end
  return items
end

local PAGE = 16

-- banshee1_log_head: the oldest entries of a log, as many as one flush should carry: mark-clean reads them all again.
--   KEYS   log
--   ARGV   most entries, most bytes (one entry comes whatever its size)
--   reply  entries as of XRANGE
redis.register_function {
  function_name = 'banshee1_log_head',
  callback = function(KEYS, ARGV)
    local most, bytes = number_in(ARGV[1], 1, 100000), number_in(ARGV[2], 1, 2 ^ 40)
    if not most or not bytes then return invalid('most: not a number') end
    local head, start = {}, '-'
    while #head < most do
      -- Small pages: how large the next entries are is known only when they are read.
      local page = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', math.min(PAGE, most - #head))
      for _, entry in ipairs(page) do
        for _, text in ipairs(entry[2]) do bytes = bytes - #text end
        if bytes < 0 and #head > 0 then return head end
        head[#head + 1] = entry
      end
      if #page < PAGE then break end
      start = '(' .. page[#page][1]
    end
    return head
  end,
  flags = { 'no-writes', 'allow-oom' },
}

-- banshee1_mark_clean: forgets the part of the log that is committed in PostgreSQL, and lets clean keys go.
-- The log is compared by content: after a failover an id can stand for something else, which nobody has flushed.
--   KEYS   log, dead, accesses, stats, then those of the items
--   ARGV   first and last id of the flushed part ('' = none), its SHA-1 (lower-case hex over id, field, value, field,
--          value of each entry), hot TTL in milliseconds, number of dead letters, for each its id and reason; then the
--          items, each a letter and its arguments (see SETTLE)
--   reply  CHANGED (nothing was done: read the log again) | number of entries that left the log
redis.register_function {
  function_name = 'banshee1_mark_clean',
  callback = function(KEYS, ARGV)
    local log, dead, accesses, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
    local first, last, hot_ttl, letters = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
    if not is_ttl(ARGV[4]) then return invalid('ttl: not milliseconds') end
    if not letters then return invalid('letters: not a number') end
    local items, wrong = items_of(KEYS, ARGV, 6 + 2 * letters)
    if not items then return invalid(wrong) end
    local entries, through = {}, ZERO
    if first ~= '' then
      local digest
      entries, digest = log_range(log, last)
      if digest ~= ARGV[3] then return CHANGED end
      local ms, seq = string.match(last, '^(%d+)-(%d+)$')
      through = pack_stamp(tonumber(ms), tonumber(seq))
    end
    if letters > 0 then redis.call('XLEN', dead) end -- fails on another type: what cannot be buried stays in the log
    local reasons = {}
    for i = 6, 5 + 2 * letters, 2 do reasons[ARGV[i]] = ARGV[i + 1] end
    for _, entry in ipairs(entries) do
      if reasons[entry[1]] then
        pcall(bury, dead, entry, reasons[entry[1]])
      end
    end
    for _, item in ipairs(items) do
      -- A key that somebody broke (another type) must not keep the log from being trimmed.
      pcall(item.run, item.keys, item.args, through, hot_ttl, accesses)
    end
    if first == '' then return 0 end
    pcall(redis.call, 'HSET', stats, 'flushed', last)
    local ms, seq = string.match(last, '^(%d+)-(%d+)$')
    return redis.call('XTRIM', log, 'MINID', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
  end,
  flags = { 'allow-oom' },
}

-- banshee1_evict: drops those of the keys that are clean. A key has a TTL only if all of it is in PostgreSQL.
--   KEYS   any of one agent
--   reply  [dropped, kept]
redis.register_function {
  function_name = 'banshee1_evict',
  callback = function(KEYS)
    local dropped, kept = 0, 0
    for _, key in ipairs(KEYS) do
      local ttl = redis.call('PTTL', key)
      if ttl >= 0 then
        redis.call('DEL', key)
        dropped = dropped + 1
      elseif ttl == -1 then
        kept = kept + 1
        -- What an index says of types as a whole goes with what is clean.
        if redis.call('TYPE', key).ok == 'zset' then redis.call('ZREMRANGEBYSCORE', key, '-inf', '(0') end
      end
    end
    return { dropped, kept }
  end,
  flags = { 'allow-oom' },
}

-- banshee1_want: a client that got MISS and cannot rehydrate asks the daemon to; the agent is resident soon after.
--   KEYS   wanted
--   ARGV   agent (16 bytes)
--   reply  1 | 0 (it was asked for already)
redis.register_function {
  function_name = 'banshee1_want',
  callback = function(KEYS, ARGV)
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    return redis.call('SADD', KEYS[1], ARGV[1])
  end,
}

-- The way from PostgreSQL: a reader that missed takes a lease, asks PostgreSQL, and offers what that said.

-- banshee1_lease: a reader that missed asks for the right to offer what PostgreSQL will say.
-- The lease lies where the key would be, so whatever creates the key ends it, and it ends by itself after its TTL.
--   KEYS   state | memory | messages | events
--   ARGV   's' | 'm' | 'h', token (8 bytes), TTL in milliseconds
--   reply  RESIDENT (read again; of a list: its header is the right to offer) | token to offer with (another reader's, if
--          it was first)
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
      if redis.call('EXISTS', key) == 1 then return RESIDENT end
      redis.call('RPUSH', key, pack_header { from_us = NEVER, from_stamp = ZERO, birth = token, trims = 0, late = ZERO })
    else
      return invalid('kind: not s, m or h')
    end
    redis.call('PEXPIRE', key, ttl)
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

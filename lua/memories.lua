-- What an agent knows. A memory is a string:
--   'P' present: stamp (8 bytes), then doubles: expires (0 = never), access count, last accessed, created, updated;
--       then the body (MessagePack, the client's). All before that is its head.
--   'T' transient: the same, of a type that the user declared volatile: it has a TTL from the start, no stamp, and never
--       goes to PostgreSQL
--   'A' absent: stamp (8 bytes) of its deletion, or zeros where PostgreSQL knows no such memory
--   'L' a rehydration is under way: its token
-- The shard's accesses is a set of memories read since the last flush, `<agent><type>:<key>`.

local HEADER = '>ddddd'
local HEAD = 49

-- The head of what is there, as all of it can be large; false where nothing is.
local function head_of(memory)
  local head = redis.call('GETRANGE', memory, 0, HEAD - 1)
  return (head ~= '' or redis.call('EXISTS', memory) == 1) and head
end

local function parse_memory(value)
  local mark = value and string.sub(value, 1, 1)
  if mark ~= 'P' and mark ~= 'T' then return nil end
  local expires, count, accessed, created, updated = struct.unpack(HEADER, value, 10)
  return {
    expires = expires, count = count, accessed = accessed, created = created, updated = updated,
    transient = mark == 'T',
  }
end

local function is_expired(memory, now)
  return memory.expires > 0 and memory.expires <= now
end

-- A member is text that PostgreSQL can hold: UTF-8 without NUL. One that is not could be stored here and carried nowhere.
local function is_member(text)
  if not text then return false end
  if string.find(text, '^[a-z0-9_]+:[ -~]+$') then return true end
  if not string.find(text, '^[a-z0-9_]+:.') or string.find(text, '%z') then return false end
  local at = string.find(text, '[\128-\255]')
  while at do
    local sequence = string.match(text, '^[\194-\223][\128-\191]', at)
      or string.match(text, '^\224[\160-\191][\128-\191]', at)
      or string.match(text, '^[\225-\236\238\239][\128-\191][\128-\191]', at)
      or string.match(text, '^\237[\128-\159][\128-\191]', at)
      or string.match(text, '^\240[\144-\191][\128-\191][\128-\191]', at)
      or string.match(text, '^[\241-\243][\128-\191][\128-\191][\128-\191]', at)
      or string.match(text, '^\244[\128-\143][\128-\191][\128-\191]', at)
    if not sequence then return false end
    at = string.find(text, '[\128-\255]', at + #sequence)
  end
  return true
end

local function is_known(value)
  return value and string.byte(value) ~= 76
end

local function store_transient(key, index, member, head, body, ttl, now)
  local milliseconds = math.ceil(ttl * 1000)
  settle_member(index, member, milliseconds, now)
  head = 'T' .. ZERO .. head
  redis.call('SET', key, head .. body, 'PX', milliseconds)
  return head
end

-- banshee1_store_memory: stores or replaces. What is replaced leaves its creation time and access count.
--   KEYS   memory, index, log
--   ARGV   agent (16 bytes), member (<type>:<key>), seconds to live ('' = for ever), body, 'blind' to store it as new
--          where the key is not resident ('' = MISS then), 'volatile' to keep it out of PostgreSQL (needs seconds), 'replace'
--          not to store it where there is none
--   reply  MISS | nil (there is none to replace) | its head
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_store_memory',
  callback = once('v', 3, function(KEYS, ARGV)
    local agent, member, how = ARGV[1], ARGV[2], ARGV[5]
    if not is_agent(agent) then return invalid('agent: not 16 bytes') end
    if not is_member(member) then return invalid('member: not <type>:<key> in UTF-8') end
    if not ARGV[4] or ARGV[4] == '' then return invalid('body: empty') end
    local ttl = ARGV[3] == '' and 0 or number_in(ARGV[3], 1e-6, 3155760000)
    if not ttl then return invalid('ttl: not seconds over 0 and up to a hundred years') end
    if how == 'volatile' and ttl == 0 then return invalid('ttl: a volatile memory needs one') end
    local now = now_us()
    local before = head_of(KEYS[1])
    if not is_known(before) and how ~= 'blind' and how ~= 'volatile' then return MISS end
    local mark, expires, count, accessed, created = before and string.byte(before), nil, 0, now, now
    local is_living = false
    if mark == 80 or mark == 84 then
      local until_us, counted, last, first = struct.unpack('>dddd', before, 10)
      is_living = until_us == 0 or until_us > now
      if is_living then count, accessed, created = counted, last, first end
    end
    if how == 'replace' and not is_living then return false end
    expires = ttl > 0 and math.floor(now + ttl * 1000000) or 0
    -- One that is in PostgreSQL, or will be, is replaced there too: or what it was would come back.
    if how == 'volatile' and mark ~= 80 and (mark ~= 65 or redis.call('PTTL', KEYS[1]) ~= -1) then
      local head = struct.pack(HEADER, expires, count, accessed, created, now)
      return store_transient(KEYS[1], KEYS[2], member, head, ARGV[4], ttl, now)
    end
    local ms, seq = log_append(KEYS[3], 'V', agent, member)
    name_soiled(KEYS[2], member)
    local head = struct.pack('>BI6I2ddddd', 80, ms, seq, expires, count, accessed, created, now)
    redis.call('SET', KEYS[1], head .. ARGV[4]) -- which takes a TTL away
    return head
  end),
}

-- banshee1_get_memory: reads without counting.
--   KEYS   memory      ARGV  none
--   reply  MISS | nil (there is none) | the value
redis.register_function {
  function_name = 'banshee1_get_memory',
  callback = function(KEYS)
    local value = redis.call('GET', KEYS[1])
    if not is_known(value) then return MISS end
    local m = parse_memory(value)
    if not m or is_expired(m, now_us()) then return false end
    return value
  end,
  flags = { 'no-writes', 'allow-oom' },
}

-- banshee1_retrieve_memory: reads and counts the access.
--   KEYS   memory, index, accesses
--   ARGV   agent (16 bytes), member
--   reply  MISS | nil (there is none) | the value, this access included
redis.register_function {
  function_name = 'banshee1_retrieve_memory',
  callback = function(KEYS, ARGV)
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if not is_member(ARGV[2]) then return invalid('member: not <type>:<key> in UTF-8') end
    local value = redis.call('GET', KEYS[1])
    if not is_known(value) then return MISS end
    local m, now = parse_memory(value), now_us()
    if not m or is_expired(m, now) then return false end
    local counted = struct.pack('>dd', m.count + 1, now)
    if not m.transient and redis.call('SADD', KEYS[3], ARGV[1] .. ARGV[2]) == 1 then soil(KEYS[1], KEYS[2], ARGV[2]) end
    redis.call('SETRANGE', KEYS[1], 17, counted)
    return string.sub(value, 1, 17) .. counted .. string.sub(value, 34)
  end,
}

-- banshee1_delete_memory: leaves a tombstone, which stays until PostgreSQL has it.
--   KEYS   memory, index, log
--   ARGV   agent (16 bytes), member
--   reply  MISS | 1 | 0 (there was none)
redis.register_function {
  function_name = 'banshee1_delete_memory',
  callback = function(KEYS, ARGV)
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if not is_member(ARGV[2]) then return invalid('member: not <type>:<key> in UTF-8') end
    local before = head_of(KEYS[1])
    if not is_known(before) then return MISS end
    local m = parse_memory(before)
    if not m or is_expired(m, now_us()) then return 0 end
    if m.transient then
      forget_name(KEYS[2], ARGV[2])
      return redis.call('DEL', KEYS[1])
    end
    local ms, seq = log_append(KEYS[3], 'V', ARGV[1], ARGV[2], true)
    soil(KEYS[1], KEYS[2], ARGV[2])
    redis.call('SET', KEYS[1], 'A' .. pack_stamp(ms, seq))
    return 1
  end,
  flags = { 'allow-oom' },
}

-- What an agent feels. A state is a hash:
--   <emotion>       intensity and the time when it was that: two doubles, 16 bytes. Only what is felt has a field.
--   <emotion>/rate  the agent's own rate of decay: a double. Only where it differs.
--   meta            stamp of the last write (8 bytes), time of the last write (double)
--   absent          instead of meta: PostgreSQL knows no state of this agent either
--   lease           instead of meta: a rehydration is under way, and this is its token
-- Values are never decayed in place: intensity(t) = intensity * (1 - rate)^seconds is worked out by whoever reads.

local FLOOR = 0.01

local RATES = {
  joy = 0.05, distress = 0.08, hope = 0.06, fear = 0.12, satisfaction = 0.04, disappointment = 0.07,
  relief = 0.08, fear_confirmed = 0.10, pride = 0.03, shame = 0.10, admiration = 0.04, reproach = 0.08,
  gratification = 0.03, remorse = 0.09, gratitude = 0.03, anger = 0.15, love = 0.01, hate = 0.02,
  happy_for = 0.05, resentment = 0.06, gloating = 0.07, pity = 0.04,
}

-- Not pairs(): a reply and a log entry must not depend on the order of a hash table.
local function fields_of(state)
  local flat = redis.call('HGETALL', state)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return flat, fields
end

local function is_resident(fields)
  return fields.meta ~= nil or fields.absent ~= nil
end

local function rate_of(fields, emotion)
  local own = fields[emotion .. '/rate']
  return own and struct.unpack('>d', own) or RATES[emotion]
end

local function faded(intensity, rate, microseconds)
  local left = intensity
  if microseconds > 0 then left = intensity * (1 - rate) ^ (microseconds / 1000000) end
  return left >= FLOOR and left or 0
end

local function felt_at(fields, emotion, now)
  local value = fields[emotion]
  if not value then return 0 end
  local intensity, at = struct.unpack('>dd', value)
  return faded(intensity, rate_of(fields, emotion), now - at)
end

-- Reads `emotion, amount, emotion, amount, ...` from ARGV[first] on. Returns the pairs, or nil and what is wrong.
local function parse_changes(ARGV, first, low)
  local changes, named = {}, {}
  if (#ARGV - first) % 2 == 0 then return nil, 'changes: an emotion without an amount' end
  for i = first, #ARGV, 2 do
    local amount = number_in(ARGV[i + 1], low, 1)
    if not RATES[ARGV[i]] then return nil, 'emotion: none of the 22' end
    if not amount then return nil, 'amount: not a number in [' .. low .. ', 1]' end
    if named[ARGV[i]] then return nil, 'emotion: named twice' end
    named[ARGV[i]] = true
    changes[#changes + 1] = { ARGV[i], amount }
  end
  return changes
end

-- What a change makes of an emotion. One that happened earlier (`at` < `now`) has faded since.
local function changed(fields, mode, emotion, amount, at, now)
  local effect = amount
  if at < now then
    effect = amount * (1 - rate_of(fields, emotion)) ^ ((now - at) / 1000000)
  end
  if mode == 'add' then effect = felt_at(fields, emotion, now) + effect end
  effect = math.min(math.max(effect, 0), 1)
  return effect >= FLOOR and effect or 0
end

-- Writes the changes and the new stamp. The key keeps no TTL: until it is flushed it is the only copy.
local function apply(state, fields, mode, changes, at, now, ms, seq)
  local set = { 'meta', pack_stamp(ms, seq) .. struct.pack('>d', now) }
  local gone = { 'absent', 'lease' }
  for _, change in ipairs(changes) do
    local emotion = change[1]
    local intensity = changed(fields, mode, emotion, change[2], at, now)
    if intensity > 0 then
      set[#set + 1] = emotion
      set[#set + 1] = struct.pack('>dd', intensity, now)
      fields[emotion] = set[#set]
    else
      gone[#gone + 1] = emotion
      fields[emotion] = nil
    end
  end
  redis.call('HSET', state, unpack(set))
  if #gone > 2 or fields.absent or fields.lease then redis.call('HDEL', state, unpack(gone)) end
  redis.call('PERSIST', state)
end

-- A state as bytes, for a log entry: time, then each field with the lengths of its name and value.
local function snapshot(flat, now)
  local parts = { struct.pack('>d', now) }
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    if RATES[name] or string.sub(name, -5) == '/rate' then
      parts[#parts + 1] = string.char(#name) .. name .. string.char(#value) .. value
    end
  end
  return table.concat(parts)
end

-- banshee1_load_state: what an agent feels, as stored; the reader works out the decay to the time in the reply.
--   KEYS   state       ARGV  none
--   reply  MISS | [now, field, value, field, value, ...]
redis.register_function {
  function_name = 'banshee1_load_state',
  callback = function(KEYS)
    local flat, fields = fields_of(KEYS[1])
    if not is_resident(fields) then return MISS end
    table.insert(flat, 1, now_us())
    return flat
  end,
  flags = { 'no-writes', 'allow-oom' },
}

-- banshee1_save_state: replaces a state.
--   KEYS   state, log
--   ARGV   agent (16 bytes), time of the values in microseconds ('' = now), then pairs: <emotion> intensity,
--          <emotion>/rate rate; all numbers as text in [0, 1]
--   reply  id of the log entry
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_save_state',
  callback = function(KEYS, ARGV)
    local now = now_us()
    local at = moment(ARGV[2], now)
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if not at then return invalid('time: not microseconds since 1970') end
    if #ARGV % 2 == 1 then return invalid('fields: a name without a value') end
    local set, named = {}, {}
    for i = 3, #ARGV, 2 do
      local emotion, slash = string.match(ARGV[i], '^([a-z_]+)(/?r?a?t?e?)$')
      local value = number_in(ARGV[i + 1], 0, 1)
      if not RATES[emotion] or (slash ~= '' and slash ~= '/rate') then return invalid('emotion: none of the 22') end
      if not value then return invalid('value: not a number in [0, 1]') end
      if named[ARGV[i]] then return invalid('emotion: named twice') end
      named[ARGV[i]] = true
      if slash == '/rate' then
        set[#set + 1], set[#set + 2] = ARGV[i], struct.pack('>d', value)
      elseif value >= FLOOR then
        set[#set + 1], set[#set + 2] = emotion, struct.pack('>dd', value, math.min(at, now))
      end
    end
    local state_type = redis.call('TYPE', KEYS[1]).ok
    if state_type ~= 'hash' and state_type ~= 'none' then return invalid('state: the key holds something else') end
    local ms, seq = log_append(KEYS[2], 'S', ARGV[1], '')
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'meta', pack_stamp(ms, seq) .. struct.pack('>d', now), unpack(set))
    return string.format('%.0f-%.0f', ms, seq)
  end,
}

-- banshee1_update_emotions: decays to now, applies, clamps to [0, 1], drops what is under the floor, in one step.
--   KEYS   state, log
--   ARGV   agent (16 bytes), 'add' | 'set', then pairs: emotion, amount (text; in [-1, 1] to add, [0, 1] to set)
--   reply  MISS | [now, field, value, ...] as it is afterwards
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_update_emotions',
  callback = once(2, function(KEYS, ARGV)
    local mode = ARGV[2]
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if mode ~= 'add' and mode ~= 'set' then return invalid('mode: neither add nor set') end
    local changes, wrong = parse_changes(ARGV, 3, mode == 'add' and -1 or 0)
    if not changes then return invalid(wrong) end
    local _, fields = fields_of(KEYS[1])
    if not is_resident(fields) then return MISS end
    local now = now_us()
    local ms, seq = log_append(KEYS[2], 'S', ARGV[1], '')
    apply(KEYS[1], fields, mode, changes, now, now, ms, seq)
    local reply = redis.call('HGETALL', KEYS[1])
    table.insert(reply, 1, now)
    return reply
  end),
}

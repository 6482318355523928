-- What an agent feels. A state is a hash:
--   <emotion>       intensity and the time when it was that: two doubles, 16 bytes. Only what is felt has a field.
--   <emotion>/rate  the agent's own rate of decay: a double. Only where it differs.
--   meta            stamp of the last write (8 bytes), time of the last write (double)
--   absence         what being away means for decay: 'active' or 'capped:<seconds>'. No field: 'wall', nothing.
--   paused          microseconds for which decay has stood still so far (double). No field: none.
--   away            since when the agent is away (double), where that stops decay. No field: it is not.
--   blind           it was saved where it was not resident: what absence means is PostgreSQL's to say; it leaves Redis
--                   once it is flushed
--   absent          instead of meta: PostgreSQL knows no state of this agent either
--   lease           instead of meta: a rehydration is under way, and this is its token
-- Values are never decayed in place: intensity(t) = intensity * (1 - rate)^seconds is worked out by whoever reads.
-- All times of emotions are by the agent's own clock, which is the server's but for the time for which it stood still:
-- of an `active` agent between an end_session and the next start_session, of a `capped` one what a gap between two
-- writes has over its cap.

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

local function double_in(fields, name)
  return fields[name] and struct.unpack('>d', fields[name])
end

local function last_write(fields)
  return struct.unpack('>d', fields.meta, 9)
end

local function cap_of(fields)
  local seconds = fields.absence and string.match(fields.absence, '^capped:(.+)$')
  return seconds and tonumber(seconds) * 1000000
end

-- The agent's clock when the server's says `now`.
local function own_clock(fields, now)
  if not (fields.absence or fields.paused or fields.away) then return now end
  local paused, away, cap = double_in(fields, 'paused') or 0, double_in(fields, 'away'), cap_of(fields)
  if away then return math.min(now, away) - paused end
  if cap and fields.meta then return math.floor(math.min(now, last_write(fields) + cap)) - paused end
  return now - paused
end

-- A write ends a gap: what it had over the cap was a pause.
local function end_gap(fields, now)
  local cap = cap_of(fields)
  if not cap or not fields.meta then return end
  local over = now - math.floor(last_write(fields) + cap)
  if over > 0 then fields.paused = struct.pack('>d', (double_in(fields, 'paused') or 0) + over) end
end

-- What a change makes of an emotion at `own` on the agent's clock. One that happened earlier has faded since.
local function changed(fields, mode, emotion, amount, late, own)
  local effect = amount
  if late > 0 then effect = amount * (1 - rate_of(fields, emotion)) ^ (late / 1000000) end
  if mode == 'add' then effect = felt_at(fields, emotion, own) + effect end
  effect = math.min(math.max(effect, 0), 1)
  return effect >= FLOOR and effect or 0
end

-- Writes the changes and the new stamp. The key keeps no TTL: until it is flushed it is the only copy. Returns what was
-- set (names and values), and the names of what is not there any more.
local function apply(state, fields, mode, changes, late, now, ms, seq)
  local own = own_clock(fields, now)
  end_gap(fields, now)
  local set = { 'meta', struct.pack('>I6I2d', ms, seq, now) }
  if fields.paused then set[3], set[4] = 'paused', fields.paused end
  local gone = { 'absent', 'lease' }
  for _, change in ipairs(changes) do
    local emotion = change[1]
    local intensity = changed(fields, mode, emotion, change[2], late, own)
    if intensity > 0 then
      set[#set + 1] = emotion
      set[#set + 1] = struct.pack('>dd', intensity, own)
    else
      gone[#gone + 1] = emotion
    end
  end
  redis.call('HSET', state, unpack(set))
  if #gone > 2 or fields.absent or fields.lease then redis.call('HDEL', state, unpack(gone)) end
  redis.call('PERSIST', state)
  return set, gone
end

-- The place of a name among names and values; nil: it is not there.
local function place_of(flat, name)
  for i = 1, #flat, 2 do
    if flat[i] == name then return i end
  end
end

-- What HGETALL would give now, behind the time; made of what it gave before.
local function felt_now(now, flat, set, gone)
  for i = 1, #set, 2 do
    local at = place_of(flat, set[i]) or #flat + 1
    flat[at], flat[at + 1] = set[i], set[i + 1]
  end
  for _, name in ipairs(gone) do
    local at = place_of(flat, name)
    if at then
      table.remove(flat, at)
      table.remove(flat, at)
    end
  end
  table.insert(flat, 1, now)
  return flat
end

-- A state as bytes, for a log entry: time, the same by the agent's clock, then each field of an emotion with the lengths
-- of its name and value; of a `whole` one also which write made it and what absence means for it.
local CLOCK_FIELDS = { meta = true, absence = true, paused = true, away = true, blind = true }
local function snapshot(flat, fields, now, whole)
  local parts = { struct.pack('>dd', now, own_clock(fields, now)) }
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    if RATES[name] or string.sub(name, -5) == '/rate' or (whole and CLOCK_FIELDS[name]) then
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
    local flat = redis.call('HGETALL', KEYS[1])
    if flat[1] ~= 'meta' then -- which is nearly always written first
      local _, fields = fields_of(KEYS[1])
      if not is_resident(fields) then return MISS end
    end
    table.insert(flat, 1, now_us())
    return flat
  end,
  flags = { 'no-writes', 'allow-oom' },
}

-- banshee1_save_state: replaces what is felt and the rates; what absence means for the agent stays.
--   KEYS   state, log
--   ARGV   agent (16 bytes), time of the values in microseconds ('' = now), then pairs: <emotion> intensity,
--          <emotion>/rate rate, all numbers as text in [0, 1]; and 'resident' '1' not to write where the key is not
--          resident (otherwise the meaning of absence is PostgreSQL's once it is flushed)
--   reply  MISS | id of the log entry
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_save_state',
  callback = function(KEYS, ARGV)
    local now = now_us()
    local at = moment(ARGV[2], now)
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if not at then return invalid('time: not microseconds since 1970') end
    if #ARGV % 2 == 1 then return invalid('fields: a name without a value') end
    local flat, fields = fields_of(KEYS[1])
    local resident, must_be = is_resident(fields), false
    local set, named, own = {}, {}, own_clock(fields, math.min(at, now))
    for i = 3, #ARGV, 2 do
      local emotion, slash = string.match(ARGV[i], '^([a-z_]+)(/?r?a?t?e?)$')
      local value = number_in(ARGV[i + 1], 0, 1)
      if ARGV[i] == 'resident' then
        must_be = true
      elseif not RATES[emotion] or (slash ~= '' and slash ~= '/rate') then
        return invalid('emotion: none of the 22')
      elseif not value then
        return invalid('value: not a number in [0, 1]')
      elseif named[ARGV[i]] then
        return invalid('emotion: named twice')
      elseif slash == '/rate' then
        set[#set + 1], set[#set + 2] = ARGV[i], struct.pack('>d', value)
      elseif value >= FLOOR then
        set[#set + 1], set[#set + 2] = emotion, struct.pack('>dd', value, own)
      end
      named[ARGV[i]] = true
    end
    if must_be and not resident then return MISS end
    end_gap(fields, now)
    for _, name in ipairs({ 'absence', 'paused', 'away' }) do
      if fields[name] then set[#set + 1], set[#set + 2] = name, fields[name] end
    end
    if not resident or fields.blind then set[#set + 1], set[#set + 2] = 'blind', '1' end
    local ms, seq = log_append(KEYS[2], 'S', ARGV[1], '')
    redis.call('HSET', KEYS[1], 'meta', pack_stamp(ms, seq) .. struct.pack('>d', now), unpack(set))
    -- Not by DEL before it: while its slot migrates, a key that is gone cannot be made again.
    local stays = { meta = true }
    for i = 1, #set, 2 do stays[set[i]] = true end
    for i = 1, #flat, 2 do
      if not stays[flat[i]] then redis.call('HDEL', KEYS[1], flat[i]) end
    end
    redis.call('PERSIST', KEYS[1])
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
  callback = once('u', 2, function(KEYS, ARGV)
    local mode = ARGV[2]
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if mode ~= 'add' and mode ~= 'set' then return invalid('mode: neither add nor set') end
    local changes, wrong = parse_changes(ARGV, 3, mode == 'add' and -1 or 0)
    if not changes then return invalid(wrong) end
    local flat, fields = fields_of(KEYS[1])
    if not is_resident(fields) then return MISS end
    local now = now_us()
    local ms, seq = log_append(KEYS[2], 'S', ARGV[1], '')
    return felt_now(now, flat, apply(KEYS[1], fields, mode, changes, 0, now, ms, seq))
  end),
}

-- banshee1_set_temperament: an agent's own rates of decay and what being away means for it. What it feels stays.
--   KEYS   state, log
--   ARGV   agent (16 bytes), 'wall' | 'active' | 'capped:<seconds>' | '' (as it is), then pairs: <emotion> rate (text in
--          [0, 1]; '' for the emotion's own)
--   reply  MISS | [now, field, value, ...] as it is afterwards
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_set_temperament',
  callback = function(KEYS, ARGV)
    local absence, now = ARGV[2], now_us()
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    local cap = absence and string.match(absence, '^capped:(.+)$')
    if cap and not number_in(cap, 0, 3155760000) then return invalid('absence: not capped by seconds') end
    if not cap and absence ~= '' and absence ~= 'wall' and absence ~= 'active' then
      return invalid('absence: not wall, active or capped:<seconds>')
    end
    if #ARGV % 2 == 1 then return invalid('rates: an emotion without a rate') end
    for i = 3, #ARGV, 2 do
      if not RATES[ARGV[i]] then return invalid('emotion: none of the 22') end
      if ARGV[i + 1] ~= '' and not number_in(ARGV[i + 1], 0, 1) then return invalid('rate: not a number in [0, 1]') end
    end
    local _, fields = fields_of(KEYS[1])
    if not is_resident(fields) then return MISS end
    local own = own_clock(fields, now)
    local ms, seq = log_append(KEYS[2], 'S', ARGV[1], '')
    local set, gone = { 'meta', pack_stamp(ms, seq) .. struct.pack('>d', now) }, { 'absent' }
    -- From here on other rates and another clock hold, so what is felt is brought to now by the old ones.
    for emotion in pairs(RATES) do
      local left = felt_at(fields, emotion, own)
      if left > 0 then
        set[#set + 1], set[#set + 2] = emotion, struct.pack('>dd', left, now)
      elseif fields[emotion] then
        gone[#gone + 1] = emotion
      end
    end
    gone[#gone + 1] = 'paused'
    if fields.away and (absence == '' or absence == 'active') then
      set[#set + 1], set[#set + 2] = 'away', struct.pack('>d', now)
    else
      gone[#gone + 1] = 'away'
    end
    -- What absence means is said here, so PostgreSQL need not be asked.
    if absence ~= '' then gone[#gone + 1] = 'blind' end
    if absence == 'wall' then
      gone[#gone + 1] = 'absence'
    elseif absence ~= '' then
      set[#set + 1], set[#set + 2] = 'absence', absence
    end
    for i = 3, #ARGV, 2 do
      if ARGV[i + 1] == '' or tonumber(ARGV[i + 1]) == RATES[ARGV[i]] then
        gone[#gone + 1] = ARGV[i] .. '/rate'
      else
        set[#set + 1], set[#set + 2] = ARGV[i] .. '/rate', struct.pack('>d', tonumber(ARGV[i + 1]))
      end
    end
    redis.call('HSET', KEYS[1], unpack(set))
    redis.call('HDEL', KEYS[1], unpack(gone))
    redis.call('PERSIST', KEYS[1])
    local reply = redis.call('HGETALL', KEYS[1])
    table.insert(reply, 1, now)
    return reply
  end,
}

-- banshee1_set_presence: an agent goes away or comes back. Stops and starts the clock of an `active` one.
--   KEYS   state, log
--   ARGV   agent (16 bytes), 'away' | 'here'
--   reply  MISS | 1 | 0 (that changes nothing for it)
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_set_presence',
  callback = function(KEYS, ARGV)
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if ARGV[2] ~= 'away' and ARGV[2] ~= 'here' then return invalid('presence: neither away nor here') end
    local _, fields = fields_of(KEYS[1])
    if not is_resident(fields) then return MISS end
    local away, now = double_in(fields, 'away'), now_us()
    if fields.absence ~= 'active' or (ARGV[2] == 'away') == (away ~= nil) then return 0 end
    local ms, seq = log_append(KEYS[2], 'S', ARGV[1], '')
    local meta = pack_stamp(ms, seq) .. struct.pack('>d', now)
    if away then
      local paused = (double_in(fields, 'paused') or 0) + math.max(now - away, 0)
      redis.call('HDEL', KEYS[1], 'away')
      redis.call('HSET', KEYS[1], 'meta', meta, 'paused', struct.pack('>d', paused))
    else
      redis.call('HSET', KEYS[1], 'meta', meta, 'away', struct.pack('>d', now))
    end
    redis.call('PERSIST', KEYS[1])
    return 1
  end,
}

-- What was said to an agent and what happened to it: two lists, one element a message or an event.
--
-- An entry:    flag (1 byte: 0, or 1 if the record brought a time of its own), that time (double, microseconds) if so,
--              length of the context (2 bytes), context, body (MessagePack, the client's)
-- An element:  stamp (8 bytes), entry
--              or, of a message without context or time of its own, whose id is made of its stamp: MessagePack by itself, an
--              array of id (bin, 16 bytes), time (timestamp 64), and what follows the nonce in its body. So most lists are
--              read in one go.
-- The log holds entries: there the stamp is the id. A record's place in history is (its time, its stamp); the list is
-- kept in that order.
--
-- The first element is the header, which says what the list is (a marker anywhere else could outlive the list):
--   \255, from: the place from which on nothing is missing here (double, 8 bytes of stamp),
--   birth (8 bytes: no two lists have the same), trims (4 bytes: how often records left it or were
--   offered to it),
--   late (8 bytes: no stamp but that of the last element is larger; so it and the last element tell what is flushed)

local NEVER = 9007199254740992
local ZERO = '\0\0\0\0\0\0\0\0' -- a stamp before all others; libraries load without string.rep
local FEED_LENGTH = 1000 -- events a shard's feed keeps for subscribers that were away: no promise, they are in PostgreSQL
local CHUNK = 500 -- arguments of one command: Lua cannot unpack more than some thousands
local MOST = 1000 -- elements of a list that one call walks along: Redis does nothing else meanwhile

local function pack_header(h)
  return '\255' .. struct.pack('>d', h.from_us) .. h.from_stamp .. h.birth .. struct.pack('>I4', h.trims) .. h.late
end

local function parse_header(bytes)
  if not bytes or string.byte(bytes) ~= 255 then return nil end
  return {
    from_us = struct.unpack('>d', bytes, 2),
    from_stamp = string.sub(bytes, 10, 17),
    birth = string.sub(bytes, 18, 25),
    trims = struct.unpack('>I4', bytes, 26),
    late = string.sub(bytes, 30, 37),
  }
end

-- The first byte of an element that is MessagePack: an array of four to eight. No stamp begins so before the year 7000.
local function is_array(element)
  local first = string.byte(element)
  return first >= 148 and first <= 152
end

local function stamp_in(element)
  if not is_array(element) then return string.sub(element, 1, 8) end
  local high, low = struct.unpack('>I2B', element, 10)
  return string.sub(element, 4, 9) .. struct.pack('>I2', (high - 28672) * 16 + math.floor(low % 64 / 4))
end

local function time_in(element)
  if is_array(element) then return struct.unpack('>I6', element, 4) * 1000 end
  if string.byte(element, 9) == 0 then
    return struct.unpack('>I6', element) * 1000
  end
  return struct.unpack('>d', element, 10)
end

-- The id of a record; see `stamps.record_id`.
local function id_of(ms, seq, nonce)
  return struct.pack('>I6I2B', ms, 28672 + math.floor(seq / 16), 128 + seq % 16 * 4 + string.byte(nonce) % 4)
    .. string.sub(nonce, 2)
end

-- The id of the record in an element: in its body, or made of its time, stamp and nonce.
local function id_in(element)
  if is_array(element) then return string.sub(element, 4, 19) end
  local start = string.byte(element, 9) == 0 and 10 or 18
  local body = start + 2 + struct.unpack('>I2', element, start)
  local array, kind, size = string.byte(element, body, body + 2)
  if array == 220 then kind, size = string.byte(element, body + 3, body + 4) end
  local at = array == 220 and body + 5 or body + 3
  if kind ~= 196 or (size ~= 8 and size ~= 16) then return nil end
  local nonce = string.sub(element, at, at + size - 1)
  if #nonce < size then return nil end
  if size == 16 then return nonce end
  local _, seq = struct.unpack('>I6I2', element)
  return id_of(math.floor(time_in(element) / 1000), seq, nonce)
end

-- The element of an entry; the same as `element_of` in `hot/wire.py`.
local function element_of(kind, ms, seq, entry)
  local flag, high, low, array, bin, size, first = string.byte(entry, 1, 7)
  local seconds = math.floor(ms / 1000)
  if kind ~= 'M' or flag + high + low > 0 or bin ~= 196 or size ~= 8 or array < 147 or array > 151 or #entry < 14
    or seconds >= 17179869184 then
    return pack_stamp(ms, seq) .. entry
  end
  -- The id is that of `id_of`.
  return struct.pack('>BBBI6I2Bc7BBI4I4', array + 1, 196, 16,
    ms, 28672 + math.floor(seq / 16), 128 + seq % 16 * 4 + first % 4, string.sub(entry, 8, 14),
    215, 255, ms % 1000 * 4000000 + math.floor(seconds / 4294967296), seconds % 4294967296) .. string.sub(entry, 15)
end

-- Whether an element lies at or after a place.
local function is_from(element, us, stamp)
  local at = time_in(element)
  return at > us or (at == us and not stamp_after(stamp, stamp_in(element)))
end

-- Whether an element lies after a place.
local function is_beyond(element, us, stamp)
  local at = time_in(element)
  return at > us or (at == us and stamp_after(stamp_in(element), stamp))
end

-- The index of the first element that lies after a place; the list's length where none does.
local function first_beyond(list, us, stamp)
  local low, high = 1, redis.call('LLEN', list)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_beyond(redis.call('LINDEX', list, middle), us, stamp) then high = middle else low = middle + 1 end
  end
  return low
end

-- What lies where an element does, and its index; nil where nothing does.
local function at_place_of(list, element)
  local index = first_beyond(list, time_in(element), stamp_in(element)) - 1
  local there = index > 0 and redis.call('LINDEX', list, index)
  if there and stamp_in(there) == stamp_in(element) then return there, index end
end

-- Puts an element where its place is. Returns whether that is the end.
local function insert(list, element)
  local index, length = first_beyond(list, time_in(element), stamp_in(element)), redis.call('LLEN', list)
  if index == length then
    redis.call('RPUSH', list, element)
    return true
  end
  if length - index > CHUNK then
    redis.call('LINSERT', list, 'BEFORE', redis.call('LINDEX', list, index), element)
    return false
  end
  -- Near the end of a list that may be very long: LINSERT would walk to it from the beginning.
  local later = redis.call('LRANGE', list, index, -1)
  redis.call('LTRIM', list, 0, index - 1)
  redis.call('RPUSH', list, element, unpack(later))
  return false
end

local function mark_late(list, header, stamp)
  header.late = stamp
  redis.call('LSET', list, 0, pack_header(header))
end

-- Logs an entry and adds it to its list. A list that was not there begins here: what is older may be in PostgreSQL.
-- `passes` and `id` as in log_append.
local function enter(list, log, kind, agent, entry, at, passes, id)
  local is_new = redis.call('LLEN', list) == 0 -- fails on another type before anything is written
  local ms, seq, given = log_append(log, kind, agent, entry, passes, id)
  local element = element_of(kind, ms, seq, entry)
  if is_new then
    local stamp = pack_stamp(ms, seq)
    redis.call('RPUSH', list,
      pack_header { from_us = ms * 1000, from_stamp = stamp, birth = stamp, trims = 0, late = ZERO }, element)
  elseif not at then
    redis.call('RPUSH', list, element)
  elseif not insert(list, element) then
    mark_late(list, parse_header(redis.call('LINDEX', list, 0)), pack_stamp(ms, seq))
  end
  redis.call('PERSIST', list)
  return element, given, ms, seq
end

-- Logs a record and adds it to its list. `at` is nil, or the record's own time if that lies before this millisecond.
-- Returns the element, and the id of its entry.
local function record(list, log, kind, agent, at, context, body, passes)
  local entry
  if at or context ~= '' then
    entry = (at and '\1' .. struct.pack('>d', at) or '\0') .. struct.pack('>I2', #context) .. context .. body
  else
    entry = '\0\0\0' .. body
  end
  return enter(list, log, kind, agent, entry, at, passes)
end

-- A record's own time counts if it lies before this millisecond; later ones would stand among those still to come.
local function own_time(text, now)
  if text == '' then return nil end
  local at = moment(text, now)
  if not at then return nil, true end
  if at < now - now % 1000 then return math.floor(at) end
  return nil
end

-- banshee1_append_messages: appends to an agent's history, all or none.
--   KEYS   messages, log, state
--   ARGV   agent (16 bytes), then for each message three: its time in microseconds ('' = now), '1' to record what the
--          agent feels with it ('' = not), body
--   reply  MISS (what it feels was asked for and is not resident; nothing was written) | [id of the message (16 bytes; ''
--          where the body is none), id of its log entry, time, ...]
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_append_messages',
  callback = once('m', 3, function(KEYS, ARGV)
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if #ARGV < 4 or (#ARGV - 1) % 3 ~= 0 then return invalid('messages: not in threes') end
    local felt, now
    for i = 2, #ARGV, 3 do
      if ARGV[i] ~= '' or ARGV[i + 1] ~= '' then now = now or now_us() end
      local _, wrong = own_time(ARGV[i], now)
      if wrong then return invalid('time: not microseconds since 1970') end
      if ARGV[i + 2] == '' then return invalid('body: empty') end
      if ARGV[i + 1] ~= '' and not felt then
        local flat, fields = fields_of(KEYS[3])
        if not is_resident(fields) then return MISS end
        felt = snapshot(flat, fields, now)
      end
    end
    local reply = {}
    for i = 2, #ARGV, 3 do
      local context = ARGV[i + 1] ~= '' and felt or ''
      local at = own_time(ARGV[i], now)
      local element, entry, ms = record(KEYS[1], KEYS[2], 'M', ARGV[1], at, context, ARGV[i + 2], i > 2)
      local n = #reply
      reply[n + 1], reply[n + 2], reply[n + 3] = id_in(element) or '', entry, at or ms * 1000
    end
    return reply
  end),
}

-- banshee1_save_event: what happened, and what the agent feels after it, in one step.
--   KEYS   events, log, state, feed
--   ARGV   agent (16 bytes), 'set' | 'add' | 'record', when it happened in microseconds ('' = now), body, then pairs:
--          emotion, amount (text). 'record' leaves the state as it is.
--   reply  MISS (the state is not resident; nothing was written) | the element
--   errors BANSHEE_INVALID
-- The context of an event: the time, each field of the state before it (which write made it, too), a zero byte, the mode
-- (its first letter), and each change: length of the name, name, amount (double).
redis.register_function {
  function_name = 'banshee1_save_event',
  callback = once('e', 4, function(KEYS, ARGV)
    local now = now_us()
    local mode = ARGV[2]
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if mode ~= 'add' and mode ~= 'set' and mode ~= 'record' then return invalid('mode: not add, set or record') end
    local at, wrong_time = own_time(ARGV[3], now)
    if wrong_time then return invalid('time: not microseconds since 1970') end
    if not ARGV[4] or ARGV[4] == '' then return invalid('body: empty') end
    local changes, wrong = parse_changes(ARGV, 5, mode == 'add' and -1 or 0)
    if not changes then return invalid(wrong) end
    local flat, fields = fields_of(KEYS[3])
    if not is_resident(fields) then return MISS end
    local parts = { snapshot(flat, fields, now, true), '\0', string.sub(mode, 1, 1) }
    for _, change in ipairs(changes) do
      parts[#parts + 1] = string.char(#change[1]) .. change[1] .. struct.pack('>d', change[2])
    end
    local element, _, ms, seq = record(KEYS[1], KEYS[2], 'E', ARGV[1], at, table.concat(parts), ARGV[4])
    if mode ~= 'record' then apply(KEYS[3], fields, mode, changes, at and now - at or 0, now, ms, seq) end
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', FEED_LENGTH, '*', 'a', ARGV[1], 'e', element)
    return element
  end, 4),
}

-- banshee1_amend_message: gives a message another emotional context. One that is not resident becomes so, by itself: until
-- the flush has carried the amendment, PostgreSQL still says what was before.
--   KEYS   messages, log, forgotten
--   ARGV   agent (16 bytes), its element as it is ('' = not resident), its element as it shall be, amendment (MessagePack:
--          id, time in microseconds, context)
--   reply  OK | CHANGED (the list is not as the caller saw it; nothing was written)
redis.register_function {
  function_name = 'banshee1_amend_message',
  callback = function(KEYS, ARGV)
    local list, before, after = KEYS[1], ARGV[2], ARGV[3]
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    if not after or #after < 18 then return invalid('element: no message') end
    if not ARGV[4] or ARGV[4] == '' then return invalid('amendment: empty') end
    -- Who read the message before its agent was forgotten must not bring it back.
    if is_forgotten(KEYS[3], ARGV[1], stamp_in(after)) then return CHANGED end
    local header = parse_header(redis.call('LINDEX', list, 0))
    local there, at
    if header then there, at = at_place_of(list, after) end
    if (there or '') ~= before then return CHANGED end
    local ms, seq = log_append(KEYS[2], 'A', ARGV[1], ARGV[4])
    local stamp = pack_stamp(ms, seq)
    if at then
      redis.call('LSET', list, at, after)
    else
      if not header then
        header = { from_us = NEVER, from_stamp = ZERO, birth = stamp, trims = 0, late = ZERO }
        redis.call('RPUSH', list, pack_header(header))
      end
      insert(list, after)
    end
    mark_late(list, header, stamp)
    redis.call('PERSIST', list)
    return OK
  end,
}

-- Merges two lists of elements, each in order of place; of two with one stamp the first list's stays.
local function merged(ours, theirs)
  if #ours == 0 then return theirs end
  local known, result, i = {}, {}, 1
  for _, element in ipairs(ours) do known[stamp_in(element)] = true end
  for _, element in ipairs(theirs) do
    if not known[stamp_in(element)] then
      while ours[i] and not is_from(ours[i], time_in(element), stamp_in(element)) do
        result[#result + 1], i = ours[i], i + 1
      end
      result[#result + 1] = element
    end
  end
  for j = i, #ours do result[#result + 1] = ours[j] end
  return result
end

-- banshee1_offer_history: what PostgreSQL said, into a list that lost nothing since its header was read. One that is very
-- long serves the newest by itself, and to put it together anew would hold up everybody.
--   KEYS   messages or events
--   ARGV   birth and trims of that header (12 bytes), TTL of a clean list in milliseconds, the place from which on
--          PostgreSQL's answer is complete (microseconds, 8 bytes of stamp), then elements in order of place
--   reply  OK | REFUSED
redis.register_function {
  function_name = 'banshee1_offer_history',
  callback = function(KEYS, ARGV)
    local list, from_us = KEYS[1], number_in(ARGV[3], 0, NEVER)
    if not is_ttl(ARGV[2]) then return invalid('ttl: not milliseconds') end
    if not from_us or not ARGV[4] or #ARGV[4] ~= 8 then return invalid('from: no place') end
    local header = parse_header(redis.call('LINDEX', list, 0))
    if not header or header.birth .. struct.pack('>I4', header.trims) ~= ARGV[1] then return REFUSED end
    if redis.call('LLEN', list) > MOST + #ARGV then return REFUSED end
    local offered = {}
    for i = 5, #ARGV do offered[#offered + 1] = ARGV[i] end
    local ours = redis.call('LRANGE', list, 1, -1)
    for _, element in ipairs(ours) do -- one that is not flushed may come to stand before one that is
      if stamp_after(stamp_in(element), header.late) then header.late = stamp_in(element) end
    end
    local elements = merged(ours, offered)
    local clean = redis.call('PTTL', list) >= 0
    if from_us < header.from_us or (from_us == header.from_us and stamp_after(header.from_stamp, ARGV[4])) then
      header.from_us, header.from_stamp = from_us, ARGV[4]
    end
    header.trims = header.trims + 1
    -- Behind the old ones, which then go: while its slot migrates, a key that is gone cannot be made again.
    local length = redis.call('LLEN', list)
    redis.call('RPUSH', list, pack_header(header))
    for first = 1, #elements, CHUNK do
      redis.call('RPUSH', list, unpack(elements, first, math.min(first + CHUNK - 1, #elements)))
    end
    redis.call('LTRIM', list, length, -1)
    if clean then redis.call('PEXPIRE', list, ARGV[2]) end
    return OK
  end,
}

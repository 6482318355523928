-- Dead letters: what could not be flushed, with the reason; to be tried again, or given up.
--
-- A letter is an entry of the shard's stream `dead`: id and fields k and p of the log entry that it was, and reason.

local function letter_of(dead, id)
  local found = redis.call('XRANGE', dead, id, id)[1]
  if not found then return nil end
  local letter = { id = '', k = '', p = '' }
  for i = 1, #found[2], 2 do
    if letter[found[2][i]] then letter[found[2][i]] = found[2][i + 1] end
  end
  local ms, seq = string.match(letter.id, '^(%d+)-(%d+)$')
  letter.ms, letter.seq = tonumber(ms or 0), tonumber(seq or 0) % 65536
  letter.kind, letter.agent = string.sub(letter.k, 1, 1), string.sub(letter.k, 2)
  return letter
end

local function is_letter_id(text)
  return text ~= nil and string.find(text, '^%d+%-%d+$') ~= nil
end

-- The entry of a message or event with its time in it, which its id told before; nil where it is none.
local function dated(letter)
  local flag = string.byte(letter.p)
  if flag == 1 and #letter.p >= 11 then return letter.p, struct.unpack('>d', letter.p, 2) end
  if flag ~= 0 or #letter.p < 3 then return nil end
  local at = letter.ms * 1000
  return '\1' .. struct.pack('>d', at) .. string.sub(letter.p, 2), at
end

-- The next id of the log with this sequence: the id of a message or event is made of it, and stays the one that its
-- writer was told.
local function id_like(log, seq)
  local info = redis.call('XINFO', 'STREAM', log)
  local last_ms, last_seq = 0, 0
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last_ms, last_seq = string.match(info[i + 1], '^(%d+)-(%d+)$') end
  end
  last_ms, last_seq = tonumber(last_ms), tonumber(last_seq)
  local time = redis.call('TIME')
  local ms = time[1] * 1000 + math.floor(time[2] / 1000)
  if ms <= last_ms then ms = seq > last_seq and last_ms or last_ms + 1 end
  return string.format('%.0f-%.0f', ms, seq)
end

-- banshee1_retry_letter: puts a dead letter back into the log, and a message or event back into its list, at its time.
--   KEYS   dead, log, forgotten, and of a message or event its list
--   ARGV   id of the letter
--   reply  1 | 0 (it is not there any more, is an amendment: amend the message again, or its agent was forgotten)
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_retry_letter',
  callback = function(KEYS, ARGV)
    local dead, log, forgotten, list = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
    if not is_letter_id(ARGV[1]) then return invalid('letter: not <ms>-<seq>') end
    local letter = letter_of(dead, ARGV[1])
    if not letter or letter.kind == 'A' then return 0 end
    if is_forgotten(forgotten, letter.agent, pack_stamp(letter.ms, letter.seq)) then return 0 end
    if redis.call('EXISTS', log) == 0 then return UNSEEDED end
    local entry, at
    if list then entry, at = dated(letter) end
    if entry then
      enter(list, log, letter.kind, letter.agent, entry, at, nil, id_like(log, letter.seq))
    else
      log_append(log, letter.kind, letter.agent, letter.p)
    end
    redis.call('XDEL', dead, ARGV[1])
    return 1
  end,
}

-- Whether a value is the very one that the letter speaks of, and not a later one.
local function is_of(letter, stamp)
  return stamp == pack_stamp(letter.ms, letter.seq)
end

-- banshee1_drop_letter: gives a dead letter up, and with it the state or memory that it left unflushed in Redis for ever.
--   KEYS   dead; of a state also state, of a memory also memory, index
--   ARGV   id of the letter
--   reply  1 | 0 (it is not there any more)
--   errors BANSHEE_INVALID
redis.register_function {
  function_name = 'banshee1_drop_letter',
  callback = function(KEYS, ARGV)
    if not is_letter_id(ARGV[1]) then return invalid('letter: not <ms>-<seq>') end
    local letter = letter_of(KEYS[1], ARGV[1])
    if not letter then return 0 end
    redis.call('XDEL', KEYS[1], ARGV[1])
    if letter.kind == 'S' and KEYS[2] then
      local meta = redis.pcall('HGET', KEYS[2], 'meta')
      if type(meta) == 'string' and is_of(letter, string.sub(meta, 1, 8)) then redis.call('DEL', KEYS[2]) end
    elseif letter.kind == 'V' and KEYS[3] then
      local value = redis.pcall('GET', KEYS[2])
      if type(value) == 'string' and is_of(letter, string.sub(value, 2, 9)) then
        redis.call('DEL', KEYS[2])
        pcall(forget_name, KEYS[3], letter.p)
      end
    end
    return 1
  end,
  flags = { 'allow-oom' },
}

#!lua name=banshee1
-- banshee-memory, the hot tier: one Redis Functions library, callable by any client. The interface is lua/README.md.
--
-- This file comes first when the library is put together: what all topics share. The name carries the major version of
-- the interface, so that two of them can be loaded at once.

local VERSION = { 1, 0, 0 }

-- Replies that are no error: the key is not resident, the offer came too late, the log is not what was flushed.
local MISS = { ok = 'MISS' }
local RESIDENT = { ok = 'RESIDENT' }
local REFUSED = { ok = 'REFUSED' }
local CHANGED = { ok = 'CHANGED' }
local OK = { ok = 'OK' }

-- Every error of ours begins with BANSHEE_INVALID (the caller's arguments) and comes before the first write.
local function invalid(what)
  return redis.error_reply('BANSHEE_INVALID ' .. what)
end

-- A stamp is the id of a log entry in 8 bytes: 6 of milliseconds, 2 of sequence, big-endian.
local function pack_stamp(ms, seq)
  return struct.pack('>I6I2', ms, seq)
end

-- Stamps are compared as numbers, in halves: a double cannot hold 64 bits, and `<` on strings depends on the locale.
local function stamp_after(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  return a_high > b_high or (a_high == b_high and a_low > b_low)
end

-- What a text argument says as a number in [low, high]; nil where it does not.
local function number_in(text, low, high)
  local n = tonumber(text)
  if n and n >= low and n <= high then return n end
  return nil
end

-- A moment given in microseconds since 1970, up to the year 2255; '' means now. nil where it is neither.
local function moment(text, now)
  if text == '' then return now end
  return number_in(text, 0, 9007199254740991)
end

-- Whole milliseconds, as PEXPIRE takes them.
local function is_ttl(text)
  return text ~= nil and #text < 16 and string.find(text, '^[1-9]%d*$') ~= nil
end

local function is_agent(bytes)
  return bytes ~= nil and #bytes == 16
end

-- Appends to the shard's log. Its own ids are the stamps: they grow also when the clock steps back, and its last id
-- outlives its entries. A stuck clock would run through the 65536 sequence numbers of one millisecond, so the log is
-- moved on by one millisecond half way.
local function log_append(log, kind, agent, payload)
  local id = redis.call('XADD', log, '*', 'k', kind .. agent, 'p', payload)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if seq >= 32768 then
    redis.call('XSETID', log, string.format('%.0f-0', ms + 1))
  end
  return ms, seq
end

redis.register_function {
  function_name = 'banshee1_version',
  callback = function() return VERSION end,
  flags = { 'no-writes', 'allow-oom', 'allow-stale' },
}

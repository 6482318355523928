#!lua name=banshee1
-- banshee-memory, the hot tier: one Redis Functions library, callable by any client. The interface is lua/README.md.
--
-- This file comes first when the library is put together: what all topics share. The name carries the major version of
-- the interface, so that two of them can be loaded at once.

local VERSION = { 1, 0, 0 }

-- How many entries a shard's log may hold before it takes no more; 0: any number. Whoever loads the library says so.
local BACKLOG = 0

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

-- An id of a log as a stamp; nil where it is none.
local function stamp_in_id(id)
  local ms, seq = string.match(id or '', '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  return ms and ms < 281474976710656 and seq < 65536 and pack_stamp(ms, seq) or nil
end

-- Whether what has this stamp is of a life of the agent that was forgotten. The shard's `forgotten` is a hash, agent to stamp.
local function is_forgotten(forgotten, agent, stamp)
  local through = redis.call('HGET', forgotten, agent)
  return through and not stamp_after(stamp, through)
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

-- The log of a shard exists from the moment it is seeded, also when it is empty. One that does not was lost, never was, or
-- is parked (`failover.lua`): its next stamps must lie after all that PostgreSQL has of the shard, and only who can ask
-- PostgreSQL can say where.
local UNSEEDED = { err = 'BANSHEE_UNSEEDED the log is not there: call banshee1_seed' }

local BACKLOG_FULL = { err = 'BANSHEE_BACKLOG ' .. BACKLOG .. ' entries of the shard wait for PostgreSQL' }

-- The idempotency key of the call under way, after the letter of its function: its first entry in the log names it, so that
-- the flush can keep what it was answered.
local keyed

-- How many entries a log may take before its length is asked again. It lies under what there is room for, so a log ends at
-- its limit and not after it; few, as who puts entries there without this library is not counted.
local LOOK = 16
local room = {}

-- Appends to the shard's log; the first write of every function that has one. Its own ids are the stamps: they grow also
-- when the clock steps back, and its last id outlives its entries. A stuck clock would run through the 65536 sequence
-- numbers of one millisecond, so the log is moved on by one millisecond half way. `wanted`: an id that lies ahead.
-- A log that is at its limit takes nothing, unless the entry `passes`: what frees memory does, and what is not the first of
-- its batch, which is done whole or not at all. Returns the id as milliseconds and sequence, and as it is.
local function log_append(log, kind, agent, payload, passes, wanted)
  if BACKLOG > 0 then
    local left = room[log] or 0
    if left <= 0 and not passes then
      left = math.min(BACKLOG - redis.call('XLEN', log), LOOK)
      if left <= 0 then error(BACKLOG_FULL) end
    end
    room[log] = left - 1
  end
  local id
  if keyed then
    id = redis.call('XADD', log, 'NOMKSTREAM', wanted or '*', 'k', kind .. agent, 'p', payload, 'i', keyed)
    keyed = nil
  else
    id = redis.call('XADD', log, 'NOMKSTREAM', wanted or '*', 'k', kind .. agent, 'p', payload)
  end
  if not id then error(UNSEEDED) end
  local dash, digit = string.byte(id, 14, 15)
  local ms, seq
  if dash == 45 and #id == 15 then -- as nearly always: with what follows a match takes twice as long
    ms, seq = tonumber(string.sub(id, 1, 13)), digit - 48
  else
    ms, seq = string.match(id, '^(%d+)-(%d+)$')
    ms, seq = tonumber(ms), tonumber(seq)
  end
  if seq >= 32768 then
    redis.call('XSETID', log, string.format('%.0f-0', ms + 1))
  end
  return ms, seq, id
end

-- banshee1_backlog: how full a log is, and what went through it.
--   KEYS   log, stats (or only log)        ARGV  none
--   reply  [entries that wait, entries that it ever took, at how many it takes no more (0: never), its last id, the id of
--          the entry that waits longest ('' where none does), the bytes of that entry, the server for which the shard was
--          recovered last ('': none, or not asked)]
redis.register_function {
  function_name = 'banshee1_backlog',
  callback = function(KEYS)
    local server = KEYS[2] and redis.call('HGET', KEYS[2], 'server') or ''
    if redis.call('EXISTS', KEYS[1]) == 0 then return { 0, 0, BACKLOG, '0-0', '', 0, server } end
    local flat, info = redis.call('XINFO', 'STREAM', KEYS[1]), {}
    for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
    local oldest, bytes = info['first-entry'] or { '', {} }, 0
    for _, text in ipairs(oldest[2]) do bytes = bytes + #text end
    return { info['length'], info['entries-added'], BACKLOG, info['last-generated-id'], oldest[1], bytes, server }
  end,
  flags = { 'no-writes', 'allow-oom' },
}

-- banshee1_barrier: a write that does nothing else. WAITAOF and WAIT speak of the writes of their own connection; behind
-- this one they speak of all that came before it.
--   KEYS   the barrier (any key of its own)        ARGV  none
--   reply  OK
redis.register_function {
  function_name = 'banshee1_barrier',
  callback = function(KEYS)
    redis.call('SET', KEYS[1], '')
    return OK
  end,
  flags = { 'allow-oom' },
}

redis.register_function {
  function_name = 'banshee1_version',
  callback = function() return VERSION end,
  flags = { 'no-writes', 'allow-oom', 'allow-stale' },
}

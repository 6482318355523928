-- What becomes of the keys that a flush carried: mark-clean (`flush.lua`) does this once they are committed.

-- From where on nothing is missing in a list once an element and all before it are gone.
local function begin_after(header, element)
  if not is_from(element, header.from_us, header.from_stamp) then return end
  local ms, seq = struct.unpack('>I6I2', stamp_in(element))
  header.from_us, header.from_stamp = time_in(element), pack_stamp(ms, seq + 1)
end

-- How many of up to `over` elements at the front of a list are flushed; what is left for later once these are MOST.
local function flushed_of(list, through, over)
  local drop = 0
  while drop < over and drop < MOST do
    local front, flushed = redis.call('LRANGE', list, drop + 1, math.min(drop + CHUNK, over)), 0
    for _, element in ipairs(front) do
      if stamp_after(stamp_in(element), through) then return drop + flushed end
      flushed = flushed + 1
    end
    drop = drop + flushed
  end
  return drop
end

-- Drops from the front of a list what is flushed and over the cap, and lets a list go in which nothing is unflushed.
local function settle_history(list, through, cap, hot_ttl)
  local header = parse_header(redis.call('LINDEX', list, 0))
  if not header then return end
  -- While something of it waits that is not the last element (a late one, an amended one), none of it may go.
  if stamp_after(header.late, through) then return end
  local newest = redis.call('LINDEX', list, -1)
  local clean = string.byte(newest) == 255 or not stamp_after(stamp_in(newest), through)
  local over = redis.call('LLEN', list) - 1 - cap
  local drop = clean and math.max(over, 0) or flushed_of(list, through, over)
  if drop > 0 then
    begin_after(header, redis.call('LINDEX', list, drop))
    header.trims = header.trims + 1
    redis.call('LTRIM', list, drop + 1, -1)
    redis.call('LPUSH', list, pack_header(header))
  end
  if clean then redis.call('PEXPIRE', list, hot_ttl) end
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

-- A message that lies at that time. The list is complete from nowhere then, so that readers ask PostgreSQL.
local function drop_outdated(list, id, us)
  local header = parse_header(redis.call('LINDEX', list, 0))
  if not header then return end
  local index, length = first_beyond(list, us, ZERO), redis.call('LLEN', list)
  for i, element in ipairs(redis.call('LRANGE', list, index, index + MOST - 1)) do
    if time_in(element) > us then break end
    local readable, own = pcall(id_in, element)
    if readable and own == id then
      redis.call('LREM', list, index + i < length / 2 and 1 or -1, element)
      break
    end
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
  -- a message of which PostgreSQL has a newer emotional context: KEYS list; ARGV id, its time in microseconds
  o = { keys = 1, args = 2, run = function(k, a) drop_outdated(k[1], a[1], tonumber(a[2])) end },
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

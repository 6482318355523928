-- The way to PostgreSQL: what a flush reads of a log, what is forgotten of it once that is committed, and evict.

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
--          items, each a letter and its arguments (see SETTLE in `settlement.lua`)
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
        redis.call('UNLINK', key)
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

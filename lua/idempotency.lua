-- Retries that are safe: a call that brings a key is done once within the window, and answered as it was the first time.
-- The shard's `idem` is a hash, `<agent><letter of the function><key>`: the time of the call (double, microseconds) and its
-- reply (MessagePack).
-- It has no TTL: what Redis may evict would let a retry through. The daemon sweeps what is older than the window. The flush
-- keeps the reply in PostgreSQL, too; a server that lost it is told it again before it is written to (`reached`).

local LONGEST_KEY = 256

-- A function that may be called with one KEYS more than it has (idem) and one ARGV more, the last (the idempotency key).
-- `letter`: the function's own, so that one key for calls of several functions does each of them.
-- `body`: which ARGV its reply ends with, if it does; that part is not kept, whoever repeats the call brings it along.
local function once(letter, keys, run, body)
  return function(KEYS, ARGV)
    if #KEYS < keys then return invalid('keys: too few') end
    if #KEYS == keys then return run(KEYS, ARGV) end
    local key = table.remove(ARGV)
    if not key or key == '' or #key > LONGEST_KEY then return invalid('idempotency_key: not 1 to 256 bytes') end
    if not is_agent(ARGV[1]) then return invalid('agent: not 16 bytes') end
    local idem, field = KEYS[keys + 1], ARGV[1] .. letter .. key
    local first = redis.call('HGET', idem, field)
    if first then
      local reply = cmsgpack.unpack(string.sub(first, 9))
      return body and reply .. ARGV[body] or reply
    end
    keyed = letter .. key
    local ran, reply = pcall(run, KEYS, ARGV)
    keyed = nil
    if not ran then error(reply, 0) end
    if not reply then return reply end
    if type(reply) == 'table' and (reply.err or reply.ok) then return reply end
    local kept = body and string.sub(reply, 1, #reply - #ARGV[body]) or reply
    redis.call('HSET', idem, field, struct.pack('>d', now_us()) .. cmsgpack.pack(kept))
    return reply
  end
end

-- banshee1_sweep_idempotency: forgets calls that are older than the window.
--   KEYS   idem
--   ARGV   window in seconds, cursor ('0' to begin), how many to look at
--   reply  [next cursor ('0' = done), swept]
redis.register_function {
  function_name = 'banshee1_sweep_idempotency',
  callback = function(KEYS, ARGV)
    local window = number_in(ARGV[1], 0, 3155760000)
    if not window then return invalid('window: not seconds') end
    local before, swept = now_us() - window * 1000000, 0
    local page = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
    for i = 1, #page[2], 2 do
      if struct.unpack('>d', page[2][i + 1]) < before then
        redis.call('HDEL', KEYS[1], page[2][i])
        swept = swept + 1
      end
    end
    return { page[1], swept }
  end,
  flags = { 'allow-oom' },
}

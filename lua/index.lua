-- The agent's index: a sorted set of its resident memories, `<type>:<key>`, by when Redis lets them go, in milliseconds;
-- +inf while one is not flushed. Below zero, by when they are over (negative milliseconds), it says of types:
--   '*<type>'          all of the type that PostgreSQL has alive are named here ('*': of all types that begin with no _)
--   '?<type>:<token>'  a lease on that: whoever holds it is asking PostgreSQL
-- A name leaves only together with what is said of its type, and all goes with the index, so it need not be looked after.

local function unsay(index, kind)
  for _, said in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', '(0')) do
    local of = string.match(said, '^.([^:]*)')
    if of == kind or of == '' then redis.call('ZREM', index, said) end
  end
end

local function kind_of(member)
  return string.match(member, '^[^:]*')
end

local function forget_name(index, member)
  if redis.call('ZREM', index, member) == 1 then unsay(index, kind_of(member)) end
end

-- Forgets those that are gone.
local function forget_gone(index, now_ms)
  local gone, kinds = redis.call('ZRANGEBYSCORE', index, 0, now_ms - 1000), {}
  if #gone == 0 then return end
  redis.call('ZREMRANGEBYSCORE', index, 0, now_ms - 1000)
  for _, member in ipairs(gone) do kinds[kind_of(member)] = true end
  for kind in pairs(kinds) do unsay(index, kind) end
end

-- The index goes when the last of what it says is over, unless it names one that is not flushed.
local function let_go(index, now_ms)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2]
  if not last or last == 'inf' then return end
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')[2]
  redis.call('PEXPIRE', index, math.max(tonumber(last) - now_ms, -tonumber(first) - now_ms, 1))
end

-- From here on the only copy is in Redis: the index that names it has no TTL. Called before the value is written, as the one
-- that fails where somebody put another type under the index's name. Where it named it so before, it has none already.
local function name_soiled(index, member)
  if redis.call('ZADD', index, 'CH', '+inf', member) == 1 then redis.call('PERSIST', index) end
end

-- The same of a memory that stays as it is: nor has it one.
local function soil(memory, index, member)
  name_soiled(index, member)
  redis.call('PERSIST', memory)
end

-- Names a clean member, which Redis lets go after `ttl` milliseconds; 0 or less: it is gone.
local function settle_member(index, member, ttl, now)
  local now_ms = math.floor(now / 1000)
  if ttl > 0 then redis.call('ZADD', index, now_ms + ttl, member) else forget_name(index, member) end
  forget_gone(index, now_ms)
  let_go(index, now_ms)
end

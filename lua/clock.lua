-- The clock of the hot tier: the server's. The test build of the library replaces this file, and only this file.

-- Microseconds since 1970.
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- banshee1_now: the clock by which states decay and memories expire.
--   KEYS   none        ARGV  none
--   reply  integer: microseconds since 1970
redis.register_function {
  function_name = 'banshee1_now',
  callback = now_us,
  flags = { 'no-writes', 'allow-oom' },
}

-- The clock of the test build: what `banshee:test:clock` says, else the server's.

local function now_us()
  local set = redis.call('GET', 'banshee:test:clock')
  if set then return tonumber(set) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

redis.register_function {
  function_name = 'banshee1_now',
  callback = now_us,
  flags = { 'no-writes', 'allow-oom' },
}

-- Sealed reasoning of one account's turns, for some time. See services/storage/redis_reasoning.py.
--
--   KEYS  a hash with the turns, `size`, their bytes, and `last`, the number of the last one;
--         a sorted set of the entries of each turn by expiry
--   ARGV  `recall`, the keys; or `remember`, its time in ms, most turns, most bytes, the turn, the
--         number of its exact keys, its exact keys, its loose keys
--
-- A key has the name of the entry with the turn's data: `@` and its number. It is empty where two
-- different turns have one loose key. `recall` returns the data of each key, empty, or false.

local turns, ages = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function put(key, value)
  redis.call('HINCRBY', turns, 'size', #value - redis.call('HSTRLEN', turns, key))
  redis.call('HSET', turns, key, value)
end

local function data_of(key)
  local holder = redis.call('HGET', turns, key)
  if not holder or holder == '' then return holder end
  return redis.call('HGET', turns, holder)
end

local function drop(key)
  redis.call('HINCRBY', turns, 'size', -redis.call('HSTRLEN', turns, key))
  redis.call('HDEL', turns, key)
end

local function forget(turn)
  local holder = string.match(turn, '%S+')
  for key in string.gmatch(turn, '%S+') do
    local held = redis.call('HGET', turns, key)
    if key == holder or held == holder or held == '' then drop(key) end
  end
  redis.call('ZREM', ages, turn)
end

-- A full server evicts either key alone.
if redis.call('EXISTS', turns, ages) == 1 then redis.call('DEL', turns, ages) end

for _, turn in ipairs(redis.call('ZRANGEBYSCORE', ages, '-inf', now_ms)) do forget(turn) end

if ARGV[1] == 'recall' then
  local found = {}
  for i = 2, #ARGV do found[i - 1] = data_of(ARGV[i]) end
  return found
end

local ttl_ms, most_turns, most_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local data, last_exact = ARGV[5], 6 + tonumber(ARGV[6])
local holder = '@' .. redis.call('HINCRBY', turns, 'last', 1)
put(holder, data)
for i = 7, #ARGV do
  local known = data_of(ARGV[i])
  put(ARGV[i], i > last_exact and known and known ~= data and '' or holder)
end
redis.call('ZADD', ages, now_ms + ttl_ms, holder .. ' ' .. table.concat(ARGV, ' ', 7))
while redis.call('ZCARD', ages) > most_turns
    or tonumber(redis.call('HGET', turns, 'size')) > most_bytes do
  forget(redis.call('ZRANGE', ages, 0, 0)[1])
end
redis.call('PEXPIRE', turns, ttl_ms)
redis.call('PEXPIRE', ages, ttl_ms)
return {}

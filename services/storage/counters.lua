-- One operation on all counters at once, by the server's clock.
--
--   KEYS  the counters
--   ARGV  operation, lease ID, its length in us, requests, tokens; then each counter's kind, limit,
--         and number of calls that the caller itself runs
--
-- `take` returns {retry time in us, index of the refusing counter or -1, levels..., 1 if the server
-- has lost calls of the caller or else 0}, `peek` the same without drawing; `settle` and `renew`
-- return nothing. Units and arithmetic are those of
-- services/storage/counters.py, whose PERIOD_US and CALL_RETRY_AFTER_US are set before the script.

local act, lease_id, lease_us = ARGV[1], ARGV[2], tonumber(ARGV[3])
local requests, tokens = tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local lost = 0

local function kind(i) return ARGV[3 + 3 * i] end
local function limit(i) return tonumber(ARGV[4 + 3 * i]) end
local function own(i) return tonumber(ARGV[5 + 3 * i]) end

local function put(i, level)
  if level <= 0 then
    redis.call('DEL', KEYS[i])
  else
    local drained_ms = math.ceil(level / limit(i) / 1000) + 1
    redis.call('SET', KEYS[i], string.format('%.0f %.0f', level, now), 'PX', drained_ms)
  end
end

local function count_call(i, id)
  redis.call('ZADD', KEYS[i], now + lease_us, id)
  redis.call('PEXPIRE', KEYS[i], math.ceil(lease_us / 1000))
end

-- Shortens leases that end later than a new one would: the clock was set back.
local function shorten(i)
  local longest = string.format('(%.0f', now + lease_us)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i], longest, '+inf')) do count_call(i, id) end
end

local function level(i)
  if kind(i) == 'concurrency' then
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
    local calls = redis.call('ZCARD', KEYS[i])
    if calls >= limit(i) then shorten(i) end
    if calls < own(i) then lost = 1 end  -- The server was emptied.
    return math.max(calls, own(i))
  end
  local stored = redis.call('GET', KEYS[i])
  if not stored then return 0 end
  local before, at = string.match(stored, '^(%d+) (%d+)$')
  before, at = tonumber(before), tonumber(at)
  if at > now then put(i, before); at = now end  -- The clock was set back.
  return math.max(0, before - (now - at) * limit(i))
end

if act == 'renew' then
  for i = 1, #KEYS do if kind(i) == 'concurrency' then count_call(i, lease_id) end end
  return {}
end

if act == 'settle' then
  for i = 1, #KEYS do
    local amount = kind(i) == 'requests' and requests or tokens
    if kind(i) == 'concurrency' then
      redis.call('ZREM', KEYS[i], lease_id)
    elseif amount ~= 0 then
      put(i, level(i) + amount * PERIOD_US)
    end
  end
  return {}
end

local reply = {0, -1}
for i = 1, #KEYS do
  local now_at, wait = level(i), 0
  if kind(i) == 'concurrency' then
    if now_at >= limit(i) then wait = CALL_RETRY_AFTER_US end
  else
    local amount = kind(i) == 'requests' and requests or math.min(tokens, limit(i))
    local excess = now_at - (limit(i) - amount) * PERIOD_US
    if excess > 0 then
      local rest = excess % limit(i)  -- A quotient of doubles may lose the last microsecond.
      wait = (excess - rest) / limit(i) + (rest > 0 and 1 or 0)
    end
  end
  if wait > reply[1] then reply[1] = wait; reply[2] = i - 1 end
  reply[2 + i] = now_at
end
if act == 'take' and reply[2] < 0 then
  for i = 1, #KEYS do
    if kind(i) == 'concurrency' then
      count_call(i, lease_id)
      reply[2 + i] = reply[2 + i] + 1
    else
      local amount = kind(i) == 'requests' and requests or tokens
      reply[2 + i] = reply[2 + i] + amount * PERIOD_US
      put(i, reply[2 + i])
    end
  end
end
reply[#KEYS + 3] = lost
return reply

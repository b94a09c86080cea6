-- Ends a token and with it its descendants.
--
-- KEYS[2]  ids revoked without being known; KEYS[3] the latest changes; KEYS[4] the token
-- ARGV[4]  the number of the last change that the node has
-- ARGV[5]  the token's tag; empty: whatever it is
-- ARGV[6]  its id
-- ARGV[7]  the second up to which the id is kept if it isn't held; empty: not at all
local UNKNOWN = 100000
local tag = redis.call('HGET', KEYS[4], 't')
if tag and (ARGV[5] == '' or tag == ARGV[5]) then
  redis.call('HSET', KEYS[4], 'r', 1)
  return news(1)
end
if ARGV[7] == '' then
  return news(0)
end
local until_second = tonumber(ARGV[7])
local kept = redis.call('ZSCORE', KEYS[2], ARGV[6])
if not kept then
  -- As long as a token is held after it expires.
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 20)
  if redis.call('ZCARD', KEYS[2]) >= UNKNOWN then
    return {'full', UNKNOWN}
  end
end
if not kept or tonumber(kept) < until_second then
  redis.call('ZADD', KEYS[2], until_second, ARGV[6])
  redis.call('EXPIRE', KEYS[2], 7260)
  note('unknown', ARGV[6], until_second, 0)
end
return news(1)

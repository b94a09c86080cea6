-- Asked by each node every 200 ms.
--
-- KEYS[4]  quarantines
local lost = quarantines_lost(KEYS[4])
if lost then
  return lost
end
-- A clock that is set back is known by what was seen before.
if now > seen then
  redis.call('HSET', KEYS[1], 'seen', now)
end
return news(counter)

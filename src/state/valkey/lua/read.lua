-- Reads everything that nodes keep a copy of, a page a call. What changes meanwhile is in the changes since the first.
--
-- KEYS[2]  revocations by agent; KEYS[3] quarantines; KEYS[4] ids revoked without being known
-- ARGV[4]  which of these; ARGV[5] where to go on, 0 at the beginning
local lost = quarantines_lost(KEYS[3])
if lost then
  return lost
end
local key = KEYS[tonumber(ARGV[4])]
local page = redis.call(ARGV[4] == '4' and 'ZSCAN' or 'HSCAN', key, ARGV[5], 'COUNT', 500)
return {'page', changes, page[1], page[2]}

-- What every script begins with: is this a primary, and is its epoch the one that the node knows?
--
-- KEYS[1]  the epoch's record: replid, id, fence, serve_after, base, counter, changes, latest,
--          seen (the greatest second that a poll saw), quarantines (how many entries these had)
-- ARGV[1]  a random id, made by the node for this call, in case an epoch begins now
-- ARGV[2]  the id of the epoch that the node knows; empty: none yet
-- ARGV[3]  the number of the last revocation that the node knows
--
-- A connection outlives a promotion, so this is asked each time. `master_replid` is new on every primary that was a
-- replica before or was started again; a store that was emptied keeps it, but has no record.
local info = redis.call('INFO', 'replication')
if string.match(info, 'role:(%a+)') ~= 'master' then
  return {'replica'}
end
local replid = string.match(info, 'master_replid:(%x+)')
local time = redis.call('TIME')
local now = tonumber(time[1])
local millis = now * 1000 + math.floor(tonumber(time[2]) / 1000)
local record = redis.call('HMGET', KEYS[1], 'replid', 'id', 'fence', 'serve_after', 'base', 'counter', 'changes', 'latest',
  'seen', 'quarantines')

local wait = tonumber(record[4] or '0') - millis
local seen = tonumber(record[9] or '0')

-- The epoch's check begins. A test takes it out, to show what it is for.
-- One that would wait longer than any was begun before the clock was set back; so was one that saw a later second.
if record[1] ~= replid or wait > 5000 or now < seen - 5 then
  -- Numbers of two epochs don't overlap, so that a token is never taken for one that began in the other: each begins a
  -- million further on, and none begins below the time: an emptied store and a new node know of no other.
  local greatest = math.max(tonumber(record[6] or '0'), tonumber(ARGV[3]), now * 1048576)
  local base = (math.floor(greatest / 1048576) + 1) * 1048576
  redis.call('HSET', KEYS[1], 'replid', replid, 'id', ARGV[1],
    'fence', math.max(tonumber(record[3] or '0'), now + 15, seen + 15),
    'serve_after', millis + 4000,
    'base', base, 'counter', base, 'changes', 0,
    'latest', math.max(tonumber(record[8] or '0'), now),
    'seen', now, 'quarantines', 0)
  return {'epoch', ARGV[1]}
end
-- The epoch's check ends.

if wait > 0 then
  return {'wait', wait, record[2]}
end
if record[2] ~= ARGV[2] then
  return {'epoch', record[2]}
end
local fence, base, counter = tonumber(record[3]), tonumber(record[5]), tonumber(record[6])
local changes, latest = tonumber(record[7]), tonumber(record[8])

-- A store that evicts may have forgotten who is under quarantine: an entry is lifted, never removed. Then this epoch
-- ends, and every node tells what it kept before it serves the next.
local function quarantines_lost(key)
  local held, noted = redis.call('HLEN', key), tonumber(record[10] or '0')
  if held < noted then
    redis.call('HSET', KEYS[1], 'replid', '')
    return {'wait', 4000, record[2]}
  elseif held > noted then
    redis.call('HSET', KEYS[1], 'quarantines', held)
  end
end

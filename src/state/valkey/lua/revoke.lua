-- Ends every token of an agent, or every token, minted up to now; enters a quarantine, or lifts one. Each revocation
-- takes the next number from the one counter.
--
-- KEYS[2]  revocations by agent; KEYS[3] the latest changes; KEYS[4] quarantines: version:q, or version:r where lifted
-- ARGV[4]  the number of the last change that the node has
-- ARGV[5]  agent, all, quarantine or reinstate
-- ARGV[6]  the agent; empty for all
-- ARGV[7]  the version that a quarantine has at least; for its end, the one that is to be lifted
-- ARGV[8]  again: what this node kept; it changes nothing that is as new, but at equal versions a quarantine wins, and
--          what lifted an earlier quarantine lifts none that was entered in this epoch
local AGENTS = 1000000
local kind, name, again = ARGV[5], ARGV[6], ARGV[8] == 'again'

local function next_number()
  counter = counter + 1
  latest = math.max(latest, now, seen)
  return counter
end

local function cut()
  local number = next_number()
  if name == '' then
    -- What was revoked before says nothing more.
    redis.call('DEL', KEYS[2])
  end
  redis.call('HSET', KEYS[2], name, string.format('%.0f:%.0f', number, latest))
  -- No token lives longer, another issuer's with its 10 s included.
  redis.call('EXPIREAT', KEYS[2], latest + 3630)
  return number
end

local function no_room(key)
  return redis.call('HLEN', key) >= AGENTS and redis.call('HEXISTS', key, name) == 0
end

local lost = quarantines_lost(KEYS[4])
if lost then
  return lost
end
local stored, state = string.match(redis.call('HGET', KEYS[4], name) or '0:r', '^(%d+):(%a)$')
local version, wanted = tonumber(stored), tonumber(ARGV[7])
-- Versions begin with the time: a clock that was ahead gave greater ones before. A node that has one takes no smaller word,
-- so the quarantine gets one that it takes.
if again and kind == 'reinstate' and state == 'q' and version >= base and wanted > version then
  kind, wanted = 'quarantine', wanted + 1
end
-- A store that evicts may have forgotten who is revoked: what is written now would hide it. So this epoch ends.
if kind ~= 'reinstate' and counter > base and now < latest + 3630 and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('HSET', KEYS[1], 'replid', '')
  return {'wait', 4000, record[2]}
end
-- Revoking all frees what the others took.
if ARGV[5] ~= 'reinstate' and kind ~= 'all' and no_room(KEYS[2]) or kind ~= 'agent' and kind ~= 'all' and no_room(KEYS[4]) then
  return {'full', AGENTS}
end
if kind == 'agent' or kind == 'all' then
  note(kind, name, cut(), 0)
  return news(counter)
end

local is_quarantine = kind == 'quarantine'
if again then
  if wanted < version or wanted == version and (not is_quarantine or state == 'q') then
    return news(counter)
  end
  version = wanted
elseif is_quarantine then
  -- Nodes tell a store that was emptied what they kept: a new quarantine is newer than any word of an earlier epoch,
  -- as numbers are.
  version = math.max(version + 1, wanted, base)
elseif wanted ~= version then
  -- It comes late, or its node has not heard all: it must not lift a quarantine that it didn't mean.
  return {'changed', version}
elseif state == 'q' then
  version = version + 1
else
  -- Nothing is there to be lifted.
  return news(counter)
end
redis.call('HSET', KEYS[4], name, string.format('%.0f:%s', version, is_quarantine and 'q' or 'r'))
redis.call('HSET', KEYS[1], 'quarantines', redis.call('HLEN', KEYS[4]))
note(kind, name, is_quarantine and cut() or counter, version)
return news(counter)

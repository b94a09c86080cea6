-- Whether a token may be used, and how one is entered. A token is a hash, gone by itself 20 s after it expires:
-- t its seal's tag, l uses left, n the number under which its chain began, x when it expires, a its ancestors' ids of
-- 16 bytes each, c its chain, p what its root was given (both a name a line), r set once it was revoked.
--
-- KEYS[2]  revocations by agent, and of all under the empty name: number:second
-- KEYS[3]  ids revoked without being known, by the second up to which they are kept
-- KEYS[4]  the token; KEYS[5] and on: its ancestors, the root first
-- ARGV[4]  its tag; ARGV[5] its uses; ARGV[6] when it expires; ARGV[7] when another issuer made it, or empty
-- ARGV[8]  the number of the last revocation when the request began; ARGV[9] its id
-- ARGV[10] how many ancestors; ARGV[11] how many agents in the chain; then these; then what the root was given
local AGENTS, UNKNOWN = 1000000, 100000
local issued = tonumber(ARGV[7])
local ancestors, agents = tonumber(ARGV[10]), tonumber(ARGV[11])
local rest = 12 + agents

-- That an agent's, or under the empty name everybody's, revocation ends what began under this number or was made then.
-- Another issuer's clock may be 10 s off.
local function ended(number, second)
  local names = {''}
  for at = 1, agents do
    names[at + 1] = ARGV[11 + at]
  end
  for at, cut in ipairs(redis.call('HMGET', KEYS[2], unpack(names))) do
    if cut then
      local last, moment = string.match(cut, '^(%d+):(%d+)$')
      if number and number < tonumber(last) or second and second <= tonumber(moment) + 10 then
        return {'revoked', names[at]}
      end
    end
  end
  -- A store that evicts may have forgotten who is revoked. Then this epoch ends: nobody can say who is.
  if counter > base and now < latest + 3630 and redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('HSET', KEYS[1], 'replid', '')
    return {'wait', 4000, record[2]}
  end
end

-- Why the token may not be used; or nothing, the uses that are left, its number, and whether it is held.
local function judge()
  if tonumber(ARGV[6]) + 20 <= now then
    return {'fenced'}
  end
  local held = redis.call('HMGET', KEYS[4], 't', 'l', 'n', 'r')
  if issued then
    if issued <= fence then
      return {'fenced'}
    end
  elseif held[1] ~= ARGV[4] then
    return {'fenced'}
  end
  if held[4] or not held[1] and redis.call('ZSCORE', KEYS[3], ARGV[9]) then
    return {'revoked', ''}
  end
  for at = 1, ancestors do
    local above = redis.call('HMGET', KEYS[4 + at], 't', 'r')
    if not above[1] then
      return {'fenced'}
    elseif above[2] then
      return {'revoked', ''}
    end
  end
  local number = held[3] and tonumber(held[3])
  local over = ended(number, issued)
  if over then
    return over
  end
  return nil, tonumber(held[2] or ARGV[5]), number, held[1] and true
end

-- A request that began in an earlier epoch, whose numbers mean nothing here.
local function strange()
  local born = tonumber(ARGV[8])
  return born < base or born > counter
end

-- No room to remember revocations: then nothing is minted.
local function full()
  if redis.call('HLEN', KEYS[2]) >= AGENTS then
    return {'full', AGENTS}
  end
  if redis.call('ZCARD', KEYS[3]) >= UNKNOWN then
    redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - 20)
    if redis.call('ZCARD', KEYS[3]) >= UNKNOWN then
      return {'full', UNKNOWN}
    end
  end
end

-- What is kept of revocations is kept for 3630 s of this clock: a token that lives on after it would come back.
local function outlives(expires)
  return tonumber(expires) > now + 3610
end

local function chain()
  return table.concat(ARGV, '\n', 12, 11 + agents)
end

local function enter(key, tag, left, number, expires, above, names, given)
  local fields = {'t', tag, 'l', left, 'n', number, 'x', expires, 'c', names}
  for name, value in pairs({a = above, p = given}) do
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  redis.call('HSET', key, unpack(fields))
  redis.call('EXPIREAT', key, tonumber(expires) + 20)
end

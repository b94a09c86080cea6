-- Moves uses from a token to a new child, and enters the child before anybody has it.
--
-- KEYS     after the ancestors: the child
-- ARGV     after what the root was given: the child's tag, uses, when it expires, holder and ancestors' ids
local child = KEYS[5 + ancestors]
local tag, uses, expires, holder, above =
  ARGV[rest + 1], tonumber(ARGV[rest + 2]), ARGV[rest + 3], ARGV[rest + 4], ARGV[rest + 5]
local refusal, left, number, held = judge()
if refusal then
  return refusal
end
if not held then
  if strange() then
    return {'strange'}
  end
  number = tonumber(ARGV[8])
  local over = ended(number)
  if over then
    return over
  end
end
-- A child whose holder's tokens were revoked after the chain began would be dead at birth.
local cut = redis.call('HGET', KEYS[2], holder)
if cut and number < tonumber(string.match(cut, '^(%d+):')) then
  return {'revoked', holder}
end
if outlives(expires) or not held and outlives(ARGV[6]) then
  return {'clocks'}
end
refusal = full()
if refusal then
  return refusal
end
if redis.call('EXISTS', child) == 1 or tonumber(expires) + 20 <= now then
  return {'fenced'}
end
if left < 1 then
  return {'exhausted'}
elseif left < uses then
  return {'few', left}
end
left = left - uses
if held then
  redis.call('HINCRBY', KEYS[4], 'l', -uses)
else
  enter(KEYS[4], ARGV[4], left, ARGV[8], ARGV[6], '', chain(), ARGV[rest])
end
enter(child, tag, uses, number, expires, above, chain() .. '\n' .. holder, '')
return {'left', left}

-- Spends one use. The one step whose result is the answer.
local refusal, left, _, held = judge()
if refusal then
  return refusal
end
if left < 1 then
  return {'exhausted'}
end
if held then
  return {'left', redis.call('HINCRBY', KEYS[4], 'l', -1)}
end
-- Another issuer's token, used for the first time.
if strange() then
  return {'strange'}
end
if outlives(ARGV[6]) then
  return {'clocks'}
end
enter(KEYS[4], ARGV[4], left - 1, ARGV[8], ARGV[6], '', chain(), ARGV[rest])
return {'left', left - 1}

-- Enters a root token before anybody has it.
if strange() then
  return {'strange'}
end
local refusal = full()
if refusal then
  return refusal
end
local over = ended(tonumber(ARGV[8]))
if over then
  return over
end
if outlives(ARGV[6]) then
  return {'clocks'}
end
if redis.call('EXISTS', KEYS[4]) == 1 or tonumber(ARGV[6]) + 20 <= now then
  return {'fenced'}
end
enter(KEYS[4], ARGV[4], ARGV[5], ARGV[8], ARGV[6], '', chain(), ARGV[rest])
return {'left', tonumber(ARGV[5])}

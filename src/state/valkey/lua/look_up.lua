-- What is known of an id.
--
-- KEYS[2]  revocations by agent; KEYS[3] the token
-- ARGV[4]  what comes before the id in a token's key
local held = redis.call('HMGET', KEYS[3], 'l', 'x', 'n', 'a', 'c', 'r', 'p')
if not held[1] then
  return {'none'}
end
local revoked = held[6] and 1 or 0
for id in string.gmatch(held[4] or '', string.rep('.', 16)) do
  local hex = string.gsub(id, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
  local above = redis.call('HMGET', ARGV[4] .. hex, 't', 'r')
  if not above[1] or above[2] then
    revoked = 1
  end
end
local names = {''}
for name in string.gmatch(held[5], '[^\n]+') do
  names[#names + 1] = name
end
for _, cut in ipairs(redis.call('HMGET', KEYS[2], unpack(names))) do
  if cut and tonumber(held[3]) < tonumber(string.match(cut, '^(%d+):')) then
    revoked = 1
  end
end
return {'known', tonumber(held[1]), tonumber(held[2]), held[4] or '', held[5], revoked, held[7] or ''}

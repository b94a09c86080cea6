-- What changed since the node last heard.
--
-- KEYS[3]  the latest changes, bounded: an entry a change, its id the change's number
-- ARGV[4]  the number of the last change that the node has

-- Numbers a change and puts it where the others will read it.
local function note(kind, name, number, version)
  changes = changes + 1
  redis.call('HSET', KEYS[1], 'changes', changes, 'counter', counter, 'latest', latest)
  redis.call('XADD', KEYS[3], 'MAXLEN', '10000', string.format('%.0f-0', changes),
    'k', kind, 'a', name, 'n', number, 't', latest, 'v', version)
  -- Longer than the store may be out of reach; who comes back later reads everything.
  redis.call('EXPIRE', KEYS[3], 3630)
end

local function news(number)
  local entries = {}
  if tonumber(ARGV[4]) < changes then
    entries = redis.call('XRANGE', KEYS[3], string.format('%.0f-0', tonumber(ARGV[4]) + 1), '+', 'COUNT', 1000)
  end
  return {'news', number, fence, counter, changes, entries}
end

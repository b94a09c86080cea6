-- The uses that are left. Changes nothing.
local refusal, left = judge()
if refusal then
  return refusal
end
return {'left', left}

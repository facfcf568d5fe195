-- claim: enters a value into a hash where nothing stands, or where another value stands that is to be replaced.
-- KEYS[1]  the hash. ARGV: field, value, the value to be replaced ("" for none).
-- Answer   what stands there afterwards.
local standing = redis.call("HGET", KEYS[1], ARGV[1])
if standing and (ARGV[3] == "" or standing ~= ARGV[3]) then
  return standing
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]

-- trim: drops the oldest announcements, behind the fence of the lease: who lost it drops nothing. Nor does who repeats it,
-- as the oldest announcement must be the one that the caller means.
-- KEYS     the outbox, the lease. ARGV: holder, revision of the oldest, how many.
-- Answer   1 where they were dropped, else 0.
if redis.call("GET", KEYS[2]) ~= ARGV[1] then
  return 0
end
local oldest = redis.call("LINDEX", KEYS[1], 0)
if not oldest or string.find(oldest, "\0" .. ARGV[2] .. "\0", 2, true) ~= 2 then
  return 0
end
redis.call("LTRIM", KEYS[1], ARGV[3], "-1")
return 1

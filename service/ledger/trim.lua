-- trim: drops the oldest announcements, behind the fence of the lease: who lost it drops nothing.
-- KEYS     the outbox, the lease. ARGV: holder, how many.
-- Answer   1 where the holder still has the lease, else 0.
if redis.call("GET", KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call("LTRIM", KEYS[1], ARGV[2], "-1")
return 1

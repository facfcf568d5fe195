-- release: gives a lease back.
-- KEYS[1]  the lease. ARGV: holder.
-- Answer   1 where the holder had it, else 0.
if redis.call("GET", KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call("DEL", KEYS[1])

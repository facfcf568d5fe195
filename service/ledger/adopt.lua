-- adopt: makes sure that no number is given twice after the server may have lost its last moments.
-- KEYS[1]  meta. ARGV: the incarnation of the server that answers now, how far the sequence leaps.
-- Answer   1 where it was another one before (and the sequence leapt), else 0.
local before = redis.call("HGET", KEYS[1], "incarnation")
if before == ARGV[1] then
  return 0
end
redis.call("HSET", KEYS[1], "incarnation", ARGV[1])
if not before then
  return 0
end
redis.call("HINCRBY", KEYS[1], "sequence", ARGV[2])
return 1

-- adopt: makes sure that no number is given twice after the server may have lost its last moments.
-- KEYS[1]  meta. ARGV: the incarnation of the server that answers now, how far to leap where the clock was set back.
-- Answer   1 where it was another one before, else 0.
--
-- The sequence leaps to the clock, in microseconds, of which it stays short: no shard gives a million numbers a second.
-- A leap by a fixed width would be taken again to the same place where the server loses the leap itself, with the
-- numbers given behind it; for the same reason the first incarnation leaps too.
local before = redis.call("HGET", KEYS[1], "incarnation")
if before == ARGV[1] then
  return 0
end
local time = redis.call("TIME")
local clock = tonumber(time[1]) * 1000000 + tonumber(time[2])
local sequence = tonumber(redis.call("HGET", KEYS[1], "sequence") or 0)
local leapt = clock > sequence and clock or sequence + tonumber(ARGV[2])
redis.call("HSET", KEYS[1], "incarnation", ARGV[1], "sequence", string.format("%.0f", leapt))
return before and 1 or 0

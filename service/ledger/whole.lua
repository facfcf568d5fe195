-- whole: all records of many hashes of one shard, where they are few.
-- KEYS     the hashes. ARGV[1]: how many records one of them may have.
-- Answer   for each hash its fields and values in turn; nil for one that has more.
local most, answer = tonumber(ARGV[1]), {}
for i = 1, #KEYS do
  answer[i] = redis.call("HLEN", KEYS[i]) <= most and redis.call("HGETALL", KEYS[i])
end
return answer

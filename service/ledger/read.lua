-- read: fields of many hashes of one shard, in one command: a client takes longer over a reply than Redis over a field.
-- KEYS     the hashes. ARGV[1]: a msgpack array, the fields wanted of each.
-- Answer   for each hash the values, in that order; nil for a field that is not there.
local wanted, answer = cmsgpack.unpack(ARGV[1]), {}
for i = 1, #KEYS do
  answer[i] = redis.call("HMGET", KEYS[i], unpack(wanted[i]))
end
return answer

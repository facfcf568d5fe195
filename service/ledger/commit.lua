-- commit: applies a batch of transactions to one shard, each whole or not at all, in one atomic step.
-- The rules are those of reference.py, line for line in meaning; this header and encode.py say how they get here.
--
-- KEYS     meta, positions, timers, outbox, hash of the jobs; then from `first_tenant_key` on two for each tenant (hash of its
--          accounts, zset of who waits there); then hashes of records, hashes of who waits, index sets and idempotency
--          keys, by the numbers that the program gives. Every key is declared: an undeclared one that a slot migration
--          has moved away would read as empty.
-- ARGV[1]  the program, a msgpack array: see the line that takes it apart, and `ops`.
-- ARGV[i]  payloads of records and facts of announcements: opaque bytes, never decoded here.
-- ops      all transactions as one flat array of integers (a table for each would cost more than the decisions):
--            transaction  end source position idempotency check_only cause tags n (record version)*
--                         n (account used reserved)* n attempt*
--            attempt      end head [probe n (account value overage)* n account*] takes records tail announcements
--            takes        n (asked used reserved n account*)*      netted: no account twice; asked: a limit may refuse it
--            records      n (record payload)*
--            tail         0 | 1 n record* n (key text present)* n (text due)* n (tenant text)* n waiting*
--                         (0 | waiting static indexed n (tenant text)* n attempt*) n (tenant text text)*
--                         that is: deleted, index, timers, forgotten, no longer waiting, waiting, woken
--            announcements n (facts unless_same n attempt*)*
--          0 stands for no source, key, tags or wait; -1 for no value, overage or time. Numbers count from 1.
-- Answer   { one integer for each transaction, { details } }: the version of its records where the first attempt was
--          applied, else -1 denied, -2 duplicate, -3 conflict, -4 stalled, -5 overflow. Details, where there are any:
--          "number NUL version NUL attempt NUL denials of attempt 0 NUL denials of attempt 1 ..."; attempt -1 for none.
-- Errors   "LEDGER|number|sentence|": the batch is refused whole, and nothing has changed.
-- Order    Read everything; decide everything on the copies read; only then write. Lua does not roll back: what can fail
--          comes before the first write, and the first write needs memory, so that a full server refuses it at once.

local QUANTITY_MAX = 9007199254740991 -- 2^53 - 1
local NONE = math.huge -- the limit where nothing is refused
local CHUNK = 1000 -- arguments; `unpack` fails on long lists
local IDEMPOTENCY_KEPT_MS = "86400000" -- 24 hours
local DENIED, DUPLICATE, CONFLICT, STALLED, OVERFLOW = -1, -2, -3, -4, -5
local ALMOST_REACHED, REACHED, EXCEEDED = 1, 2, 4

local KEYS, ARGV = KEYS, ARGV
local call, format, match, concat = redis.call, string.format, string.match, table.concat
local now, percent, transaction_count, first_tenant_key, first_index_key, first_idempotency_key, idempotency_count, ops, texts,
  tags, tenants, sources, stalled_sources, record_groups, account_groups, waiting_groups, waiting_tenant = unpack(cmsgpack.unpack(ARGV[1]))

local function digits(number) -- Lua's own conversion gives up at 14 digits
  return format("%.0f", number)
end

local function refuse(number, sentence)
  error("LEDGER|" .. digits(number) .. "|" .. sentence .. "|", 0)
end

-- Groups are (key or tenant, fields, indexes) again and again; `take(index, value, field)` gets each value, or false.
local function read_groups(groups, key_of, take)
  for g = 1, #groups, 3 do
    local key, fields, indexes = key_of(groups[g]), groups[g + 1], groups[g + 2]
    for first = 1, #fields, CHUNK do
      local last = math.min(first + CHUNK - 1, #fields)
      local values = call("HMGET", key, unpack(fields, first, last))
      for i = first, last do
        take(indexes[i], values[i - first + 1], fields[i], groups[g])
      end
    end
  end
end

local function call_in_chunks(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    call(command, key, unpack(arguments, first, math.min(first + CHUNK - 1, #arguments)))
  end
end

-- Writes what changed of the groups: `text_of(index)` is the new value, false for none, nil where nothing changed.
local function write_groups(groups, key_of, text_of)
  for g = 1, #groups, 3 do
    local key, fields, indexes = key_of(groups[g]), groups[g + 1], groups[g + 2]
    local set, dropped = {}, {}
    for i = 1, #fields do
      local text = text_of(indexes[i])
      if text then
        set[#set + 1] = fields[i]
        set[#set + 1] = text
      elseif text == false then
        dropped[#dropped + 1] = fields[i]
      end
    end
    call_in_chunks("HSET", key, set)
    call_in_chunks("HDEL", key, dropped)
  end
end

local function declared_key(number)
  return KEYS[number]
end

local function accounts_key(tenant)
  return KEYS[first_tenant_key + 2 * tenant - 2]
end

local function queue_key(tenant)
  return KEYS[first_tenant_key + 2 * tenant - 1]
end

-- ---------------------------------------------------------------------------------------------------- what there is

local sequence = tonumber(call("HGET", KEYS[1], "sequence") or 0)

local last_position = {}
if #sources > 0 then
  for first = 1, #sources, CHUNK do
    local positions = call("HMGET", KEYS[2], unpack(sources, first, math.min(first + CHUNK - 1, #sources)))
    for i = 1, #positions do
      last_position[first + i - 1] = tonumber(positions[i] or -1)
    end
  end
end

local first_outcome = {}
for i = 1, idempotency_count do
  first_outcome[i] = call("GET", KEYS[first_idempotency_key + i - 1])
end

local version = {} -- of records; 0 where there is none
read_groups(record_groups, declared_key, function(record, value)
  version[record] = value and tonumber(match(value, "^%d+")) or 0
end)

local used, reserved, value, overage, limit, raised, notices, account_tenant, account_item = {}, {}, {}, {}, {}, {}, {}, {}, {}
read_groups(account_groups, accounts_key, function(a, text, item, tenant)
  account_tenant[a], account_item[a] = tenant, item
  if text then
    local u, r, v, o, bits, count = match(text, "^(%d+) (%d+) (%-?%d+) (%-?%d+) (%d+) (%d+)$")
    v, o = tonumber(v), tonumber(o)
    used[a], reserved[a], value[a], overage[a] = tonumber(u), tonumber(r), v, o
    raised[a], notices[a] = tonumber(bits), tonumber(count)
    limit[a] = (v >= 0 and o >= 0) and v + o or NONE
  else
    used[a], reserved[a], value[a], overage[a], limit[a], raised[a], notices[a] = 0, 0, -1, -1, NONE, 0, 0
  end
end)

local waiting, waiting_who = {}, {}
read_groups(waiting_groups, declared_key, function(w, text, who)
  waiting[w], waiting_who[w] = text, who
end)

-- ------------------------------------------------------------------------------------------- what the batch makes of it

local answer, details = {}, {}
local stalled = {}
for i = 1, #stalled_sources do
  stalled[stalled_sources[i]] = true
end
local decided = false -- whether there is anything to write
local moved = {} -- source -> whether its position moved
local outcome_kept = {} -- idempotency key -> the outcome that is new
local record_text, writer = {}, {}
local touched, used_before, reserved_before, cause_of, roomier = {}, {}, {}, {}, {}
local tag_of = {}
local waiting_changed = {}
local index_changes, timer_changes, queue_changes = {}, {}, {}
local woken, wakes = {}, {}
local outbox = {}

local function next_number()
  sequence = sequence + 1
  return sequence
end

local function change(changes, key, member, present)
  local members = changes[key]
  if not members then
    members = {}
    changes[key] = members
  end
  members[member] = present
end

-- ---- whether limits allow it

local function deny(denials, a, cap, before, requested)
  local row = tenants[account_tenant[a]] .. "\1" .. account_item[a] .. "\1" .. digits(cap) .. "\1" .. digits(before) .. "\1" .. digits(requested)
  return denials and denials .. "\2" .. row or row
end

-- Weighs the takes at p: what refuses them (false where one alone is too large), and whether a sum would be too large.
local function weigh(p, number)
  local denials, overflows = nil, false
  local groups = ops[p]
  p = p + 1
  for _ = 1, groups do
    local asked, more_used, more_reserved, last = ops[p], ops[p + 1], ops[p + 2], p + 3 + ops[p + 3]
    if more_used > QUANTITY_MAX then
      return false, true
    end
    for q = p + 4, last do
      local a = ops[q]
      local u, r = used[a] + more_used, reserved[a] + more_reserved
      if u < 0 or r < 0 or r > u then
        refuse(number, "used " .. digits(u) .. " and reserved " .. digits(r) .. " cannot be for item " .. account_item[a] ..
          " of tenant " .. tenants[account_tenant[a]] .. ", where they were " .. digits(used[a]) .. " and " .. digits(reserved[a]))
      end
      if asked == 1 and u > limit[a] then
        denials = deny(denials, a, limit[a], used[a], more_used)
      elseif u > QUANTITY_MAX then
        overflows = true
      end
    end
    p = last + 1
  end
  return denials, overflows
end

-- The net difference of one account in the takes at p.
local function difference(p, wanted)
  local groups = ops[p]
  p = p + 1
  for _ = 1, groups do
    local last = p + 3 + ops[p + 3]
    for q = p + 4, last do
      if ops[q] == wanted then
        return ops[p + 1]
      end
    end
    p = last + 1
  end
  return 0
end

-- Sets the limits at p for the time being; `undo` keeps what they were. Whether one is too large to count with.
local function set_limits(p, undo)
  for q = p + 1, p + 3 * ops[p], 3 do
    local a, v, o = ops[q], ops[q + 1], ops[q + 2]
    undo[#undo + 1] = { a, value[a], overage[a], limit[a] }
    value[a], overage[a], limit[a] = v, o, NONE
    if v >= 0 and o >= 0 then
      limit[a] = v + o
      if limit[a] > QUANTITY_MAX then
        return true
      end
    end
  end
  return false
end

local function restore_limits(undo)
  for i = #undo, 1, -1 do
    local a = undo[i][1]
    value[a], overage[a], limit[a] = undo[i][2], undo[i][3], undo[i][4]
  end
end

-- ---- what happens to accounts

local function notice(a, name, cause)
  notices[a] = notices[a] + 1
  outbox[#outbox + 1] = concat({ "N", digits(next_number()), digits(now), tenants[account_tenant[a]], account_item[a], name,
    digits(used[a]), digits(value[a]), digits(overage[a]), digits(percent), digits(notices[a]), cause }, "\0")
end

local function raise_notices(a, cause)
  local u, v, present = used[a], value[a], 0
  if v >= 0 then
    if u > (limit[a] == NONE and v or limit[a]) then
      present = EXCEEDED
    end
    if v > 0 and u >= v * percent / 100 then
      present = present + ALMOST_REACHED
    end
    if v > 0 and u >= v then
      present = present + REACHED
    end
  end
  local before = raised[a]
  if present == before then
    return
  end
  raised[a] = present
  local function crossed(bits, from, to)
    return bit.band(to, bits) ~= 0 and bit.band(from, bits) == 0
  end
  if crossed(ALMOST_REACHED, present, before) then notice(a, "cleared", cause) end
  if crossed(ALMOST_REACHED, before, present) then notice(a, "almost_reached", cause) end
  if crossed(REACHED, before, present) then notice(a, "reached", cause) end
  if crossed(EXCEEDED, before, present) then notice(a, "exceeded", cause) end
end

local function touch(a, cause)
  if not used_before[a] then
    used_before[a], reserved_before[a] = used[a], reserved[a]
    touched[#touched + 1] = a
  end
  cause_of[a] = cause
end

local function apply_takes(p, cause)
  local groups = ops[p]
  p = p + 1
  for _ = 1, groups do
    local more_used, more_reserved, last = ops[p + 1], ops[p + 2], p + 3 + ops[p + 3]
    for q = p + 4, last do
      local a = ops[q]
      touch(a, cause)
      used[a], reserved[a] = used[a] + more_used, reserved[a] + more_reserved
      if more_used < 0 and limit[a] < NONE then
        roomier[a] = true
      end
      raise_notices(a, cause)
    end
    p = last + 1
  end
end

local function apply_limits(undo, cause)
  local checked = {}
  for i = 1, #undo do
    local a = undo[i][1]
    if not checked[a] then
      checked[a] = true
      touch(a, cause)
      if undo[i][4] < NONE and limit[a] > undo[i][4] then
        roomier[a] = true
      end
      raise_notices(a, cause)
    end
  end
end

-- ---- who waits

-- The (tenant, item) that the rows of a text begin with, each once: a list, and the same as a set.
local function places_in(text)
  local list, set = {}, {}
  for row in string.gmatch(text, "[^\2]+") do
    local place = match(row, "^[^\1]*\1[^\1]*")
    if not set[place] then
      set[place] = true
      list[#list + 1] = place
    end
  end
  return list, set
end

local function same_places(one, other)
  local list, set = places_in(one)
  local other_list = places_in(other)
  for i = 1, #other_list do
    if not set[other_list[i]] then
      return false
    end
  end
  return #list == #other_list
end

local tenant_number
local function change_queues(places, since, w, present)
  if not tenant_number then
    tenant_number = {}
    for t = 1, #tenants do
      tenant_number[tenants[t]] = t
    end
  end
  for i = 1, #places do
    local tenant, item = match(places[i], "^([^\1]*)\1(.*)$")
    local t = tenant_number[tenant]
    if t then -- else its queue is not declared: the entry stays, leads nowhere, and whoever meets it forgets it
      change(queue_changes, t, item .. "\0" .. format("%016.0f", since) .. "\0" .. tenants[waiting_tenant[w]] .. "\0" .. waiting_who[w], present)
    end
  end
end

local function parse_waiting(text)
  local since, static, places, denials = match(text, "^(%d+)%z(%Z*)%z(%Z*)%z(%Z*)$")
  return tonumber(since), static, places, denials
end

local function stop_waiting(w)
  if waiting[w] then
    local since, _, places = parse_waiting(waiting[w])
    change_queues(places_in(places), since, w, false)
    waiting[w], waiting_changed[w] = false, true
  end
end

-- Keeps why w waits; whether it waited for the same reasons before.
local function start_waiting(w, static, places, denials)
  local since, same = now, false
  if waiting[w] then
    local old_static, old_places, old_denials
    since, old_static, old_places, old_denials = parse_waiting(waiting[w])
    same = old_static == static and same_places(old_denials, denials)
    if same and same_places(old_places, places) then
      return true
    end
    change_queues(places_in(old_places), since, w, false)
  end
  change_queues(places_in(places), since, w, true)
  waiting[w] = digits(since) .. "\0" .. static .. "\0" .. places .. "\0" .. denials
  waiting_changed[w] = true
  return same
end

-- ---- the rest of an attempt: each part answers where the next one begins, and what that one needs

local function refusals_of(p, refusals) -- n attempt*
  local last = p + ops[p]
  if last == p then
    return "", p + 1
  end
  local texts_of = {}
  for q = p + 1, last do
    texts_of[#texts_of + 1] = refusals[ops[q]]
  end
  return concat(texts_of, "\2"), last + 1
end

local function put_records(p, number)
  local last, new_version = p + 2 * ops[p], 0
  if last > p then
    new_version = next_number()
    local prefix = digits(new_version) .. " "
    for q = p + 1, last, 2 do
      local record = ops[q]
      record_text[record], version[record], writer[record] = prefix .. ARGV[ops[q + 1]], new_version, number
    end
  end
  return new_version, last + 1
end

local function read_wait(p, refusals) -- waiting static indexed n (tenant text)* n attempt*
  local w, static, indexed = ops[p], texts[ops[p + 1]], ops[p + 2]
  local rows = {}
  p = p + 3
  for q = p + 1, p + 2 * ops[p], 2 do
    rows[#rows + 1] = tenants[ops[q]] .. "\1" .. texts[ops[q + 1]]
  end
  local denials
  denials, p = refusals_of(p + 2 * ops[p] + 1, refusals)
  rows[#rows + 1] = denials ~= "" and denials or nil
  local places = indexed == 1 and concat(places_in(concat(rows, "\2")), "\2") or ""
  return start_waiting(w, static, places, denials), p
end

local function apply_tail(p, number, cause, refusals)
  for q = p + 1, p + ops[p] do
    local record = ops[q]
    record_text[record], version[record], writer[record] = false, 0, number
  end
  p = p + ops[p] + 1
  for q = p + 1, p + 3 * ops[p], 3 do
    change(index_changes, ops[q], texts[ops[q + 1]], ops[q + 2] == 1)
  end
  p = p + 3 * ops[p] + 1
  for q = p + 1, p + 2 * ops[p], 2 do
    timer_changes[texts[ops[q]]] = ops[q + 1] >= 0 and ops[q + 1] or false
  end
  p = p + 2 * ops[p] + 1
  for q = p + 1, p + 2 * ops[p], 2 do
    change(queue_changes, ops[q], texts[ops[q + 1]], false)
  end
  p = p + 2 * ops[p] + 1
  for q = p + 1, p + ops[p] do
    stop_waiting(ops[q])
  end
  p = p + ops[p] + 1
  local same = false
  if ops[p] == 0 then
    p = p + 1
  else
    same, p = read_wait(p, refusals)
  end
  for q = p + 1, p + 3 * ops[p], 3 do
    local place = ops[q] .. " " .. texts[ops[q + 1]]
    if not woken[place] then
      wakes[#wakes + 1] = place
    end
    woken[place] = { ops[q], texts[ops[q + 1]], texts[ops[q + 2]], cause }
  end
  return same, p + 3 * ops[p] + 1
end

local function announce(p, same, refusals)
  local count = ops[p]
  p = p + 1
  for _ = 1, count do
    local facts, unless_same, denials = ops[p], ops[p + 1]
    denials, p = refusals_of(p + 2, refusals)
    if not (same and unless_same == 1) then
      outbox[#outbox + 1] = "E\0" .. digits(next_number()) .. "\0" .. ARGV[facts] .. "\0" .. denials
    end
  end
end

-- ---- one transaction

-- Whether the records and balances at p are as expected; where what follows begins.
local function expectations_hold(p)
  for q = p + 1, p + 2 * ops[p], 2 do
    local record, expected = ops[q], ops[q + 1]
    if expected >= 0 then
      if version[record] ~= expected then
        return false
      end
    elseif writer[record] ~= -expected or answer[-expected] < 0 then
      return false
    end
  end
  p = p + 2 * ops[p] + 1
  for q = p + 1, p + 3 * ops[p], 3 do
    if used[ops[q]] ~= ops[q + 1] or reserved[ops[q]] ~= ops[q + 2] then
      return false
    end
  end
  return true, p + 3 * ops[p] + 1
end

local function reply(number, code, new_version, attempt, refusals)
  answer[number] = code
  local outcome = digits(attempt) .. (#refusals > 0 and "\0" .. concat(refusals, "\0") or "")
  if code < 0 then
    details[#details + 1] = digits(number) .. "\0" .. digits(new_version) .. "\0" .. outcome
  end
  return outcome
end

-- Tries the attempts one after the other; fills `refusals`. Where the applied one begins behind its head, and its number;
-- nil and OVERFLOW, or nil and -1 where all are refused.
local function choose(p, number, refusals)
  local attempts = ops[p]
  p = p + 1
  for attempt = 0, attempts - 1 do
    local following, head, probe, undo, overflows = ops[p], ops[p + 1], 0, {}, false
    local idle_from
    p = p + 2
    if head == 1 then
      probe = ops[p]
      overflows = set_limits(p + 1, undo)
      idle_from = p + 2 + 3 * ops[p + 1]
      p = idle_from + ops[idle_from] + 1
    end
    local denials = false
    if not overflows then
      denials, overflows = weigh(p, number)
    end
    if idle_from and denials ~= false then
      for q = idle_from + 1, idle_from + ops[idle_from] do
        local a = ops[q]
        local left = used[a] + difference(p, a)
        if left > 0 then
          denials = deny(denials, a, 0, left, 0)
        end
      end
    end
    if overflows and not denials then
      restore_limits(undo)
      return nil, OVERFLOW
    elseif not denials then
      return p, attempt, probe, undo
    end
    restore_limits(undo)
    refusals[#refusals + 1] = denials
    p = following
  end
  return nil, -1
end

local function apply(p, number, cause, probe, undo, refusals)
  local takes, new_version = p, nil
  for _ = 1, ops[p] do
    p = p + 4 + ops[p + 4]
  end
  new_version, p = put_records(p + 1, number)
  local same = false
  if ops[p] == 1 then
    same, p = apply_tail(p + 1, number, cause, refusals)
  else
    p = p + 1
  end
  announce(p, same, refusals)
  if probe == 0 then
    apply_takes(takes, cause)
  end
  if #undo > 0 then
    apply_limits(undo, cause)
  end
  return new_version
end

local function stall(number, source, code)
  answer[number] = code
  stalled[source] = source > 0
end

local function decide(p, number)
  local source, position, idempotency = ops[p + 1], ops[p + 2], ops[p + 3]
  if stalled[source] then
    answer[number] = STALLED
    return
  elseif source > 0 and position <= last_position[source] then
    answer[number] = DUPLICATE
    return
  elseif idempotency > 0 and first_outcome[idempotency] then
    answer[number] = DUPLICATE
    details[#details + 1] = digits(number) .. "\0" .. "0" .. "\0" .. first_outcome[idempotency]
    return
  end
  local hold, attempts_from = expectations_hold(p + 7)
  if not hold then
    return stall(number, source, CONFLICT)
  end
  local refusals = {}
  local check_only, cause, tags_from = ops[p + 4], texts[ops[p + 5]], ops[p + 6]
  local chosen, attempt, probe, undo = choose(attempts_from, number, refusals)
  if attempt == OVERFLOW then
    return stall(number, source, OVERFLOW)
  end
  local new_version = 0
  if check_only == 1 then
    restore_limits(undo or {})
  elseif chosen then
    new_version = apply(chosen, number, cause, probe, undo, refusals)
    for q = tags_from + 1, tags_from > 0 and tags_from + 2 * tags[tags_from] or 0, 2 do
      tag_of[tags[q]] = texts[tags[q + 1]]
    end
  end
  local outcome = reply(number, attempt == 0 and new_version or DENIED, new_version, attempt, refusals)
  if check_only == 0 then
    decided = true
    if source > 0 then
      last_position[source], moved[source] = position, true
    end
    if idempotency > 0 then
      first_outcome[idempotency], outcome_kept[idempotency] = outcome, true
    end
  end
end

local p = 1
for number = 1, transaction_count do
  decide(p, number)
  p = ops[p]
end
if not decided then
  return { answer, details }
end

-- ---- at the end of the batch

for i = 1, #touched do
  local a = touched[i]
  if used[a] ~= used_before[a] or reserved[a] ~= reserved_before[a] then
    local tenant = account_tenant[a]
    outbox[#outbox + 1] = concat({ "U", digits(next_number()), digits(now), tenants[tenant], account_item[a], digits(used[a]),
      digits(reserved[a]), digits(value[a]), digits(overage[a]), tag_of[tenant] or "", cause_of[a] }, "\0")
  end
end

local function somebody_waits(tenant, item)
  local prefix, changes, dropped = item .. "\0", queue_changes[tenant] or {}, 0
  for member, present in pairs(changes) do
    if string.sub(member, 1, #prefix) == prefix then
      if present then
        return true
      end
      dropped = dropped + 1
    end
  end
  local found = call("ZRANGEBYLEX", queue_key(tenant), "[" .. prefix, "(" .. item .. "\1", "LIMIT", "0", digits(dropped + 1))
  for i = 1, #found do
    if changes[found[i]] == nil then
      return true
    end
  end
  return false
end

for i = 1, #touched do
  local a = touched[i]
  local place = account_tenant[a] .. " " .. account_item[a]
  if roomier[a] and used[a] < limit[a] and not woken[place] then
    wakes[#wakes + 1] = place
    woken[place] = { account_tenant[a], account_item[a], "quota", cause_of[a] }
  end
end

local jobs = {}
for i = 1, #wakes do
  local tenant, item, reason, cause = unpack(woken[wakes[i]])
  if somebody_waits(tenant, item) then
    local name = tenants[tenant]
    local id = "wake/" .. name .. "/" .. item
    jobs[#jobs + 1] = id
    jobs[#jobs + 1] = digits(next_number()) .. " " .. concat({ "wake", name, item, reason, cause }, "\0")
    timer_changes["job/" .. id] = now
  end
end

-- ----------------------------------------------------------------------------------------------- and only now: write

call("HSET", KEYS[1], "sequence", digits(sequence))

write_groups(account_groups, accounts_key, function(a)
  if not used_before[a] then
    return nil
  elseif used[a] == 0 and reserved[a] == 0 and value[a] < 0 and notices[a] == 0 then
    return false
  end
  return format("%.0f %.0f %.0f %.0f %.0f %.0f", used[a], reserved[a], value[a], overage[a], raised[a], notices[a])
end)

write_groups(record_groups, declared_key, function(record)
  return record_text[record]
end)

write_groups(waiting_groups, declared_key, function(w)
  if waiting_changed[w] then
    return waiting[w]
  end
end)

local function split(members, add)
  local added, dropped = {}, {}
  for member, present in pairs(members) do
    if present then
      add(added, member, present)
    else
      dropped[#dropped + 1] = member
    end
  end
  return added, dropped
end

for key, members in pairs(index_changes) do
  local added, dropped = split(members, function(list, member)
    list[#list + 1] = member
  end)
  call_in_chunks("SADD", KEYS[first_index_key + key - 1], added)
  call_in_chunks("SREM", KEYS[first_index_key + key - 1], dropped)
end

for tenant, members in pairs(queue_changes) do
  local added, dropped = split(members, function(list, member)
    list[#list + 1] = "0"
    list[#list + 1] = member
  end)
  call_in_chunks("ZADD", queue_key(tenant), added)
  call_in_chunks("ZREM", queue_key(tenant), dropped)
end

local due, never_due = split(timer_changes, function(list, member, due_ms)
  list[#list + 1] = digits(due_ms)
  list[#list + 1] = member
end)
call_in_chunks("ZADD", KEYS[3], due)
call_in_chunks("ZREM", KEYS[3], never_due)

call_in_chunks("RPUSH", KEYS[4], outbox)
call_in_chunks("HSET", KEYS[5], jobs)

local positions = {}
for source in pairs(moved) do
  positions[#positions + 1] = sources[source]
  positions[#positions + 1] = digits(last_position[source])
end
call_in_chunks("HSET", KEYS[2], positions)

for i in pairs(outcome_kept) do
  call("SET", KEYS[first_idempotency_key + i - 1], first_outcome[i], "PX", IDEMPOTENCY_KEPT_MS)
end

return { answer, details }

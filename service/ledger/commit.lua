-- commit: applies a batch of transactions to one shard, each whole or not at all, in one atomic step.
-- What is right is said by reference.py, in plain words; this is the same, made for speed.
--
-- KEYS     meta, positions, timers, outbox, hash of the jobs; two of each tenant (hash of its accounts, zset of who
--          waits there); hashes of records, hashes of who waits, index sets, idempotency keys, by the numbers in the
--          program. Every key is declared: one that is not, and that a slot migration has moved away, would read as
--          empty.
-- ARGV[1]  the program, a msgpack array: see the line that takes it apart, and `ops`.
-- ARGV[2]  payloads of records and facts of announcements, one behind the other: opaque bytes, never decoded here.
-- ops      all transactions as one flat array of integers (a table for each would cost more than the decisions).
--          Numbers count from 1; 0 is no source, key, tags; -1 no value, overage, time; `n x*` is a count and a list.
--            transaction  end source position idempotency mode cause tags n standing* n (record version)*
--                         n (account used reserved)* n attempt*
--            mode         1 check_only, 2 provisional;  standing: the number of a group of (record version)*
--            attempt      end part* 0, where a part is its code and, in the order of the codes:
--              1 probe    2 limits n (account value overage)*    3 idle n account*
--              4 takes    n (asked used reserved n account*)*    netted: no account twice; asked: a limit may refuse it
--              5 put      n (record first last)*                 6 delete n record*
--              7 index    n (key text present)*                  8 timers n (text due)*
--              9 forget   n (tenant text)*                      10 unwait n waiting*
--             11 wait     waiting static indexed n (tenant text)* n attempt*
--             12 wake     n (tenant text text)*                 13 emit n (first last unless_same n attempt*)*
--          first, last: of the bytes of a payload.
--          A version of -n in an expectation: as transaction n of this call wrote it, through its first attempt; of
--          -n - 2^32: absent, as transaction n left it through its first attempt.
-- Answer   { one integer for each transaction, { details } }: the version of its records where the first attempt was
--          applied, else -1 denied, -2 duplicate, -3 conflict, -4 stalled, -5 overflow, -6 refused. Details, if any:
--          "number NUL version NUL attempt NUL denials of attempt 0 NUL denials of attempt 1 ..."; attempt -1 for none.
-- Errors   "LEDGER|number|sentence|": the batch is refused whole, and nothing has changed.
-- Order    Read everything; decide everything on the copies read; only then write. Lua does not roll back: what can
--          fail comes before the first write, and the first write needs memory, so that a full server refuses it.

local QUANTITY_MAX = 9007199254740991 -- 2^53 - 1
local NEVER = 9007199254740992 -- a version that no record has
local LEFT_ABSENT = 4294967296 -- see the expectations in the header
local NONE = math.huge -- the limit where nothing is refused
local CHUNK = 1000 -- arguments; `unpack` fails on long lists
local IDEMPOTENCY_KEPT_MS = "86400000" -- 24 hours
local DENIED, DUPLICATE, CONFLICT, STALLED, OVERFLOW, REFUSED = -1, -2, -3, -4, -5, -6
local CHECK_ONLY, PROVISIONAL = 1, 2
local SILENT = "^%." -- items that are only counted: nothing is announced of them, and nobody is woken for them
local ALMOST_REACHED, REACHED, EXCEEDED = 1, 2, 4
local PROBE, LIMITS, IDLE, TAKES, PUT, DELETE, INDEX, TIMERS, FORGET, UNWAIT, WAIT, WAKE, EMIT =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13

local KEYS, payloads, call = KEYS, ARGV[2], redis.call -- a local is found faster than a global
local format, match, sub, concat, min, max = string.format, string.match, string.sub, table.concat, math.min, math.max
local now, percent, transaction_count, first_tenant_key, first_index_key, first_idempotency_key, idempotency_count,
  ops, texts, tags, standing, tenants, sources, stalled_sources, record_groups, account_groups,
  waiting_key, waiting_who, waiting_tenant = unpack(cmsgpack.unpack(ARGV[1]))

-- Numbers and their texts, each converted once: most of them come again and again. Lua's own conversion gives up at 14
-- digits. %d takes half the time of %.0f, where a C long has 64 bits.
local INTEGER = format("%d", QUANTITY_MAX) == "9007199254740991" and "%d" or "%.0f"
local text_of = setmetatable({}, { __index = function(known, number)
  local text = format(INTEGER, number)
  known[number] = text
  return text
end })
local number_of = setmetatable({}, { __index = function(known, text)
  local number = tonumber(text)
  known[text] = number
  return number
end })

local function refuse(number, sentence)
  error("LEDGER|" .. text_of[number] .. "|" .. sentence .. "|", 0)
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

-- Groups are (where, fields, indexes) again and again; `take(index, value or false, field, where)` gets each field.
local function read_groups(groups, key_of, take)
  for g = 1, #groups, 3 do
    local where, fields, indexes = groups[g], groups[g + 1], groups[g + 2]
    if #fields == 1 then
      take(indexes[1], call("HGET", key_of(where), fields[1]), fields[1], where)
    else
      for first = 1, #fields, CHUNK do
        local last = min(first + CHUNK - 1, #fields)
        local values = call("HMGET", key_of(where), unpack(fields, first, last))
        for i = first, last do
          take(indexes[i], values[i - first + 1], fields[i], where)
        end
      end
    end
  end
end

local function call_in_chunks(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    call(command, key, unpack(arguments, first, min(first + CHUNK - 1, #arguments)))
  end
end

-- Writes what changed of the groups: `new_text(index)` is the new value, false for none, nil where nothing changed.
local function write_groups(groups, key_of, new_text)
  for g = 1, #groups, 3 do
    local fields, indexes, set, dropped = groups[g + 1], groups[g + 2], nil, nil
    for i = 1, #fields do
      local text = new_text(indexes[i])
      if text then
        set = set or {}
        set[#set + 1] = fields[i]
        set[#set + 1] = text
      elseif text == false then
        dropped = dropped or {}
        dropped[#dropped + 1] = fields[i]
      end
    end
    if set then
      call_in_chunks("HSET", key_of(groups[g]), set)
    end
    if dropped then
      call_in_chunks("HDEL", key_of(groups[g]), dropped)
    end
  end
end

-- ---------------------------------------------------------------------------------------------------- what there is

local sequence = tonumber(call("HGET", KEYS[1], "sequence") or 0)

local last_position, source_numbers = {}, {}
for i = 1, #sources do
  source_numbers[i] = i
end
read_groups({ 2, sources, source_numbers }, declared_key, function(source, position)
  last_position[source] = tonumber(position or -1)
end)

local first_outcome = {}
for i = 1, idempotency_count do
  first_outcome[i] = call("GET", KEYS[first_idempotency_key + i - 1])
end

local version = {} -- of records; 0 where there is none
read_groups(record_groups, declared_key, function(record, value)
  version[record] = value and tonumber(match(value, "^%d+")) or 0
end)

local used, reserved, value, overage, limit, raised, notices = {}, {}, {}, {}, {}, {}, {}
local account_tenant, account_item, is_silent = {}, {}, {}
local calm_from, calm_to = {}, {} -- while from <= used < to no notice is due; an empty range where that is not known
read_groups(account_groups, accounts_key, function(a, text, item, tenant)
  account_tenant[a], account_item[a] = tenant, item
  is_silent[a] = match(item, SILENT) and true
  if text then
    local u, r, v, o, bits, count = match(text, "^(%d+) (%d+) (%-?%d+) (%-?%d+) (%d+) (%d+)$")
    v, o = number_of[v], number_of[o]
    used[a], reserved[a], value[a], overage[a] = number_of[u], number_of[r], v, o
    limit[a] = (v >= 0 and o >= 0) and v + o or NONE
    raised[a], notices[a], calm_from[a], calm_to[a] = number_of[bits], number_of[count], NONE, 0
  else
    used[a], reserved[a], value[a], overage[a], limit[a] = 0, 0, -1, -1, NONE
    raised[a], notices[a], calm_from[a], calm_to[a] = 0, 0, 0, NONE
  end
end)

-- Why somebody waits is read when it is asked for: most who would wait are granted what they want.
local waiting = setmetatable({}, { __index = function(known, w)
  local text = call("HGET", KEYS[waiting_key[w]], waiting_who[w])
  known[w] = text
  return text
end })

-- ------------------------------------------------------------------------------------ what the batch makes of it

local answer, details, decided = {}, {}, false
local stalled, moved, outcome_is_new = {}, {}, {}
local record_text = {} -- of records that change; false where one is deleted
local touched, used_before, reserved_before, cause_of, roomier, tag_of = {}, {}, {}, {}, {}, {}
local waiting_is_new, index_changes, timer_changes, queue_changes = {}, {}, {}, {}
local wakes, wake_of, outbox = {}, {}, {}
local number, cause, version_now, same_reasons -- of the present transaction
local refusals -- the denials of its refused attempts

for i = 1, #stalled_sources do
  stalled[stalled_sources[i]] = true
end

-- Groups of expectations hold until one of their records changes.
local is_standing, stood_at, changes_of_standing = {}, {}, 0
for g = 1, #standing do
  for i = 1, #standing[g], 2 do
    is_standing[standing[g][i]] = true
  end
end

local function next_number()
  sequence = sequence + 1
  return sequence
end

local function change(changes, key, member, present)
  local members = changes[key] or {}
  changes[key] = members
  members[member] = present
end

-- ---- whether limits allow an attempt

local function denial(before, a, cap, used_then, requested)
  local tenant, item = tenants[account_tenant[a]], account_item[a]
  local row = concat({ tenant, item, text_of[cap], text_of[used_then], text_of[requested] }, "\1")
  return before and before .. "\2" .. row or row
end

local function refuse_impossible(a, u, r)
  local found = text_of[u] .. " and reserved " .. text_of[r] .. " cannot be for item " .. account_item[a]
  local known = ", where they were " .. text_of[used[a]] .. " and " .. text_of[reserved[a]]
  refuse(number, "used " .. found .. " of tenant " .. tenants[account_tenant[a]] .. known)
end

-- Weighs the takes at p: what refuses them, whether a sum would be too large, whether one alone is; where they end.
local function weigh(p)
  local ops, used, reserved, limit = ops, used, reserved, limit
  local denials, overflows, hopeless = nil, false, false
  local groups = ops[p]
  p = p + 1
  for _ = 1, groups do
    local asked, more_used, more_reserved, last = ops[p] == 1, ops[p + 1], ops[p + 2], p + 3 + ops[p + 3]
    hopeless = hopeless or more_used > QUANTITY_MAX
    for q = p + 4, last do
      local a = ops[q]
      local u, r = used[a] + more_used, reserved[a] + more_reserved
      if u < 0 or r < 0 or r > u then
        if hopeless then
          return nil, true, true
        end
        refuse_impossible(a, u, r)
      end
      if asked and u > limit[a] then
        denials = denial(denials, a, limit[a], used[a], more_used)
      elseif u > QUANTITY_MAX then
        overflows = true
      end
    end
    p = last + 1
  end
  return denials, overflows, hopeless, p
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

local function set_limit(a, v, o)
  value[a], overage[a], limit[a] = v, o, (v >= 0 and o >= 0) and v + o or NONE
  calm_from[a], calm_to[a] = NONE, 0
end

-- Sets the limits at p for the time being. What they were, and whether one is too large to count with.
local function set_limits(p)
  local undo, hopeless = {}, false
  for q = p + 1, p + 3 * ops[p], 3 do
    local a = ops[q]
    undo[#undo + 1] = { a, value[a], overage[a], limit[a] }
    set_limit(a, ops[q + 1], ops[q + 2])
    hopeless = hopeless or (limit[a] > QUANTITY_MAX and limit[a] < NONE)
  end
  return undo, hopeless
end

local function restore_limits(undo)
  for i = undo and #undo or 0, 1, -1 do
    set_limit(undo[i][1], undo[i][2], undo[i][3])
  end
end

-- ---- what happens to accounts

local function notice(a, name)
  notices[a] = notices[a] + 1
  local revision, tenant, item = format(INTEGER, next_number()), tenants[account_tenant[a]], account_item[a]
  outbox[#outbox + 1] = concat({ "N", revision, text_of[now], tenant, item, name, text_of[used[a]], text_of[value[a]],
    text_of[overage[a]], text_of[percent], text_of[notices[a]], cause }, "\0")
end

local function raise_notices(a)
  local u, v, present, from, to = used[a], is_silent[a] and -1 or value[a], 0, 0, NONE
  if v >= 0 then
    local top = limit[a] == NONE and v or limit[a]
    if u > top then present, from = EXCEEDED, top + 1 else to = top + 1 end
  end
  if v > 0 then
    local almost = v * percent / 100
    if u >= almost then present, from = present + ALMOST_REACHED, max(from, almost) else to = min(to, almost) end
    if u >= v then present, from = present + REACHED, max(from, v) else to = min(to, v) end
  end
  calm_from[a], calm_to[a] = from, to
  if present == raised[a] then
    return
  end
  local risen = bit.band(present, bit.bnot(raised[a]))
  local fallen = bit.band(raised[a], bit.bnot(present))
  raised[a] = present
  if bit.band(fallen, ALMOST_REACHED) ~= 0 then notice(a, "cleared") end
  if bit.band(risen, ALMOST_REACHED) ~= 0 then notice(a, "almost_reached") end
  if bit.band(risen, REACHED) ~= 0 then notice(a, "reached") end
  if bit.band(risen, EXCEEDED) ~= 0 then notice(a, "exceeded") end
end

local function touch(a)
  used_before[a], reserved_before[a] = used[a], reserved[a]
  touched[#touched + 1] = a
end

local function apply_takes(p)
  local ops, used, reserved, calm_from, calm_to = ops, used, reserved, calm_from, calm_to
  local groups = ops[p]
  p = p + 1
  for _ = 1, groups do
    local more_used, more_reserved, last = ops[p + 1], ops[p + 2], p + 3 + ops[p + 3]
    for q = p + 4, last do
      local a = ops[q]
      if not used_before[a] then
        touch(a)
      end
      local u = used[a] + more_used
      used[a], reserved[a], cause_of[a] = u, reserved[a] + more_reserved, cause
      if more_used < 0 and limit[a] < NONE then
        roomier[a] = true
      end
      if u < calm_from[a] or u >= calm_to[a] then
        raise_notices(a)
      end
    end
    p = last + 1
  end
end

local function apply_limits(undo)
  local done = {}
  for i = 1, #undo do
    local a, limit_before = undo[i][1], undo[i][4]
    if not done[a] then
      done[a] = true
      if not used_before[a] then
        touch(a)
      end
      cause_of[a] = cause
      if limit_before < NONE and limit[a] > limit_before then
        roomier[a] = true
      end
      raise_notices(a)
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

local tenant_number -- by name; made when somebody begins or ends to wait
local function change_queues(places, since, w, present)
  if not tenant_number then
    tenant_number = {}
    for t = 1, #tenants do
      tenant_number[tenants[t]] = t
    end
  end
  local list = places_in(places)
  for i = 1, #list do
    local tenant, item = match(list[i], "^([^\1]*)\1(.*)$")
    local t = tenant_number[tenant]
    if t then -- else its queue is not declared: the entry stays, leads nowhere, and whoever meets it forgets it
      local member = concat({ item, format("%016.0f", since), tenants[waiting_tenant[w]], waiting_who[w] }, "\0")
      change(queue_changes, t, member, present)
    end
  end
end

local function parse_waiting(text)
  local since, static, places, denials = match(text, "^(%d+)%z(%Z*)%z(%Z*)%z(%Z*)$")
  return tonumber(since), static, places, denials
end

local function first_line(text)
  return match(text, "^[^\n]*")
end

-- Keeps why w waits; whether it waited for the same reasons before.
local function start_waiting(w, static, places, denials)
  local since, same = now, false
  if waiting[w] then
    local old_static, old_places, old_denials
    since, old_static, old_places, old_denials = parse_waiting(waiting[w])
    same = first_line(old_static) == first_line(static) and same_places(old_denials, denials)
    if same and old_static == static and same_places(old_places, places) then
      return true
    end
    change_queues(old_places, since, w, false)
  end
  change_queues(places, since, w, true)
  waiting[w] = text_of[since] .. "\0" .. static .. "\0" .. places .. "\0" .. denials
  waiting_is_new[w] = true
  return same
end

-- ---- the parts of an attempt behind its takes: each gets where it stands, and answers where it ends

local function denials_at(p) -- n attempt*
  local text = ""
  for q = p + 1, p + ops[p] do
    text = text .. (q > p + 1 and "\2" or "") .. refusals[ops[q]]
  end
  return text, p + ops[p] + 1
end

local parts = {}

parts[PUT] = function(p)
  local last = p + 3 * ops[p]
  version_now = next_number()
  local prefix = text_of[version_now] .. " "
  for q = p + 1, last, 3 do
    local record = ops[q]
    record_text[record], version[record] = prefix .. sub(payloads, ops[q + 1], ops[q + 2]), version_now
    if is_standing[record] then
      changes_of_standing = changes_of_standing + 1
    end
  end
  return last + 1
end

parts[DELETE] = function(p)
  for q = p + 1, p + ops[p] do
    local record = ops[q]
    record_text[record], version[record] = false, 0
    if is_standing[record] then
      changes_of_standing = changes_of_standing + 1
    end
  end
  return p + ops[p] + 1
end

parts[INDEX] = function(p)
  for q = p + 1, p + 3 * ops[p], 3 do
    change(index_changes, ops[q], texts[ops[q + 1]], ops[q + 2] == 1)
  end
  return p + 3 * ops[p] + 1
end

parts[TIMERS] = function(p)
  for q = p + 1, p + 2 * ops[p], 2 do
    timer_changes[texts[ops[q]]] = ops[q + 1] >= 0 and ops[q + 1] or false
  end
  return p + 2 * ops[p] + 1
end

parts[FORGET] = function(p)
  for q = p + 1, p + 2 * ops[p], 2 do
    change(queue_changes, ops[q], texts[ops[q + 1]], false)
  end
  return p + 2 * ops[p] + 1
end

parts[UNWAIT] = function(p)
  for q = p + 1, p + ops[p] do
    local w = ops[q]
    if waiting[w] then
      local since, _, places = parse_waiting(waiting[w])
      change_queues(places, since, w, false)
      waiting[w], waiting_is_new[w] = false, true
    end
  end
  return p + ops[p] + 1
end

parts[WAIT] = function(p)
  local w, static, indexed = ops[p], texts[ops[p + 1]], ops[p + 2] == 1
  local rows = {}
  p = p + 3
  for q = p + 1, p + 2 * ops[p], 2 do
    rows[#rows + 1] = tenants[ops[q]] .. "\1" .. texts[ops[q + 1]]
  end
  local denials, behind = denials_at(p + 2 * ops[p] + 1)
  rows[#rows + 1] = denials
  local places = indexed and concat(places_in(concat(rows, "\2")), "\2") or ""
  same_reasons = start_waiting(w, static, places, denials)
  return behind
end

parts[WAKE] = function(p)
  for q = p + 1, p + 3 * ops[p], 3 do
    local tenant, item, reason = ops[q], texts[ops[q + 1]], texts[ops[q + 2]]
    local place = tenant .. " " .. item
    if not wake_of[place] then
      wakes[#wakes + 1] = place
    end
    wake_of[place] = { tenant, item, reason, cause }
  end
  return p + 3 * ops[p] + 1
end

parts[EMIT] = function(p)
  local count = ops[p]
  p = p + 1
  for _ = 1, count do
    local facts, is_left_out, denials = sub(payloads, ops[p], ops[p + 1]), same_reasons and ops[p + 2] == 1, ""
    if ops[p + 3] == 0 then
      p = p + 4
    else
      denials, p = denials_at(p + 3)
    end
    if not is_left_out then
      outbox[#outbox + 1] = "E\0" .. format(INTEGER, next_number()) .. "\0" .. facts .. "\0" .. denials
    end
  end
  return p
end

-- ---- one transaction

-- Whether the records in a list have the versions that stand behind them.
local function have_versions(list, first, last)
  for q = first, last, 2 do
    local expected = list[q + 1]
    if expected < -LEFT_ABSENT then
      expected = answer[-expected - LEFT_ABSENT] >= 0 and 0 or NEVER
    elseif expected < 0 then
      expected = answer[-expected]
    end
    if version[list[q]] ~= expected then
      return false
    end
  end
  return true
end

-- Whether the records and balances at p are as expected, and where the attempts begin.
local function is_as_expected(p)
  local last = p + ops[p]
  for q = p + 1, last do
    local group = ops[q]
    if stood_at[group] ~= changes_of_standing then
      if not have_versions(standing[group], 1, #standing[group]) then
        return false
      end
      stood_at[group] = changes_of_standing
    end
  end
  p = last + 1
  last = p + 2 * ops[p]
  if not have_versions(ops, p + 1, last) then
    return false
  end
  p = last + 1
  last = p + 3 * ops[p]
  for q = p + 1, last, 3 do
    if used[ops[q]] ~= ops[q + 1] or reserved[ops[q]] ~= ops[q + 2] then
      return false
    end
  end
  return true, last + 1
end

-- Tries the attempts at p one after the other. The number of the first that nothing refuses, and what apply() needs of
-- it; -1 where all are refused; OVERFLOW.
local function choose(p)
  local attempts = ops[p]
  p = p + 1
  for attempt = 0, attempts - 1 do
    local following = ops[p]
    local probe, undo, idle_from, takes_from, denials, overflows, hopeless
    p = p + 1
    if ops[p] == PROBE then
      probe, p = true, p + 1
    end
    if ops[p] == LIMITS then
      undo, hopeless = set_limits(p + 1)
      p = p + 2 + 3 * ops[p + 1]
    end
    if ops[p] == IDLE then
      idle_from = p + 1
      p = idle_from + ops[idle_from] + 1
    end
    if ops[p] == TAKES and not hopeless then
      takes_from = p + 1
      denials, overflows, hopeless, p = weigh(takes_from)
    end
    if idle_from and not hopeless then
      for q = idle_from + 1, idle_from + ops[idle_from] do
        local left = used[ops[q]] + (takes_from and difference(takes_from, ops[q]) or 0)
        if left > 0 then
          denials = denial(denials, ops[q], 0, min(left, QUANTITY_MAX), 0)
        end
      end
    end
    if hopeless or (overflows and not denials) then
      restore_limits(undo)
      return OVERFLOW
    elseif not denials then
      return attempt, p, not probe and takes_from, undo
    end
    restore_limits(undo)
    refusals = refusals or {}
    refusals[attempt + 1] = denials
    p = following
  end
  return -1
end

local function apply(p, takes_from, undo)
  local ops = ops
  while ops[p] ~= 0 do
    p = parts[ops[p]](p + 1)
  end
  if takes_from then
    apply_takes(takes_from)
  end
  if undo then
    apply_limits(undo)
  end
end

local function keep_tags(p)
  for q = p + 1, p + 2 * tags[p], 2 do
    tag_of[tags[q]] = texts[tags[q + 1]]
  end
end

local function decide(p)
  local source, position, idempotency = ops[p + 1], ops[p + 2], ops[p + 3]
  if stalled[source] then
    return STALLED
  elseif source > 0 and position <= last_position[source] then
    return DUPLICATE
  elseif idempotency > 0 and first_outcome[idempotency] then
    details[#details + 1] = text_of[number] .. "\0" .. "0" .. "\0" .. first_outcome[idempotency]
    return DUPLICATE
  end
  local is_expected, attempts_from = is_as_expected(p + 7)
  if not is_expected then
    stalled[source] = source > 0
    return CONFLICT
  end
  refusals, version_now, same_reasons = nil, 0, false
  local attempt, parts_from, takes_from, undo = choose(attempts_from)
  if attempt == OVERFLOW then
    stalled[source] = source > 0
    return OVERFLOW
  end
  local check_only = bit.band(ops[p + 4], CHECK_ONLY) > 0
  if attempt < 0 and bit.band(ops[p + 4], PROVISIONAL) > 0 then
    stalled[source] = source > 0
    details[#details + 1] = text_of[number] .. "\0" .. "0" .. "\0" .. "-1" .. "\0" .. concat(refusals, "\0")
    return REFUSED
  elseif check_only then
    restore_limits(undo)
  elseif attempt >= 0 then
    cause = texts[ops[p + 5]]
    apply(parts_from, takes_from, undo)
    if ops[p + 6] > 0 then
      keep_tags(ops[p + 6])
    end
  end
  if refusals or idempotency > 0 then
    local outcome = text_of[attempt] .. (refusals and "\0" .. concat(refusals, "\0") or "")
    if refusals then
      details[#details + 1] = text_of[number] .. "\0" .. text_of[version_now] .. "\0" .. outcome
    end
    if idempotency > 0 and not check_only then
      first_outcome[idempotency], outcome_is_new[idempotency] = outcome, true
    end
  end
  if not check_only then
    decided = true
    if source > 0 then
      last_position[source], moved[source] = position, true
    end
  end
  return refusals and DENIED or version_now
end

local at = 1
for n = 1, transaction_count do
  number = n
  answer[n] = decide(at)
  at = ops[at]
end
if not decided then
  return { answer, details }
end

-- ---- at the end of the batch

for i = 1, #touched do
  local a = touched[i]
  if (used[a] ~= used_before[a] or reserved[a] ~= reserved_before[a]) and not is_silent[a] then
    local tenant = account_tenant[a]
    -- Joined by operators, as these are many and a table for each would cost.
    outbox[#outbox + 1] = "U\0" .. format(INTEGER, next_number()) .. "\0" .. text_of[now] .. "\0" .. tenants[tenant] ..
      "\0" .. account_item[a] .. "\0" .. text_of[used[a]] .. "\0" .. text_of[reserved[a]] .. "\0" ..
      text_of[value[a]] .. "\0" .. text_of[overage[a]] .. "\0" .. (tag_of[tenant] or "") .. "\0" .. cause_of[a]
  end
end

local function somebody_waits(tenant, item)
  local prefix, changes, dropped = item .. "\0", queue_changes[tenant] or {}, 0
  for member, present in pairs(changes) do
    if sub(member, 1, #prefix) == prefix then
      if present then
        return true
      end
      dropped = dropped + 1
    end
  end
  local from, to, most = "[" .. prefix, "(" .. item .. "\1", text_of[dropped + 1]
  local found = call("ZRANGEBYLEX", queue_key(tenant), from, to, "LIMIT", "0", most)
  for i = 1, #found do
    if changes[found[i]] == nil then
      return true
    end
  end
  return false
end

for i = 1, #touched do
  local a = touched[i]
  if roomier[a] and used[a] < limit[a] and not is_silent[a] then
    local place = account_tenant[a] .. " " .. account_item[a]
    if not wake_of[place] then
      wakes[#wakes + 1] = place
      wake_of[place] = { account_tenant[a], account_item[a], "quota", cause_of[a] }
    end
  end
end

local jobs = {}
for i = 1, #wakes do
  local tenant, item, reason, why = unpack(wake_of[wakes[i]])
  if somebody_waits(tenant, item) then
    local id = "wake/" .. tenants[tenant] .. "/" .. item
    jobs[#jobs + 1] = id
    local payload = concat({ "wake", tenants[tenant], item, reason, why }, "\0")
    jobs[#jobs + 1] = format(INTEGER, next_number()) .. " " .. payload
    timer_changes["job/" .. id] = now
  end
end

-- ----------------------------------------------------------------------------------------------- and only now: write

call("HSET", KEYS[1], "sequence", text_of[sequence])

write_groups(account_groups, accounts_key, function(a)
  if not used_before[a] then
    return nil
  elseif used[a] == 0 and reserved[a] == 0 and value[a] < 0 and notices[a] == 0 then
    return false
  end
  return text_of[used[a]] .. " " .. text_of[reserved[a]] .. " " .. text_of[value[a]] .. " " .. text_of[overage[a]] ..
    " " .. text_of[raised[a]] .. " " .. text_of[notices[a]]
end)

write_groups(record_groups, declared_key, function(record)
  return record_text[record]
end)

for w in pairs(waiting_is_new) do
  if waiting[w] then
    call("HSET", KEYS[waiting_key[w]], waiting_who[w], waiting[w])
  else
    call("HDEL", KEYS[waiting_key[w]], waiting_who[w])
  end
end

-- Writes members that are present or not: `add(list, member, present)` appends what the command wants to know of one.
local function write_members(key, members, add_command, add, drop_command)
  local added, dropped = {}, {}
  for member, present in pairs(members) do
    if present then
      add(added, member, present)
    else
      dropped[#dropped + 1] = member
    end
  end
  call_in_chunks(add_command, key, added)
  call_in_chunks(drop_command, key, dropped)
end

local function add_member(list, member)
  list[#list + 1] = member
end

local function add_scored(list, member, score)
  list[#list + 1] = score == true and "0" or text_of[score]
  list[#list + 1] = member
end

for index, members in pairs(index_changes) do
  write_members(KEYS[first_index_key + index - 1], members, "SADD", add_member, "SREM")
end
for tenant, members in pairs(queue_changes) do
  write_members(queue_key(tenant), members, "ZADD", add_scored, "ZREM")
end
write_members(KEYS[3], timer_changes, "ZADD", add_scored, "ZREM")

call_in_chunks("RPUSH", KEYS[4], outbox)
call_in_chunks("HSET", KEYS[5], jobs)

local positions = {}
for source in pairs(moved) do
  positions[#positions + 1] = sources[source]
  positions[#positions + 1] = text_of[last_position[source]]
end
call_in_chunks("HSET", KEYS[2], positions)

for i in pairs(outcome_is_new) do
  call("SET", KEYS[first_idempotency_key + i - 1], first_outcome[i], "PX", IDEMPOTENCY_KEPT_MS)
end

return { answer, details }

#!lua name=medchain_@RELEASE@
-- What must happen in one step. Every key is given in KEYS and bears its partition's hash tag. Redis does not undo a
-- failing script: each function first reads and checks everything, and only then writes.
-- @RELEASE@ becomes the hash of this file, so that two releases can run beside one another.

-- At most so many values are unpacked into one command: Lua's C stack holds 8000. Even, since a hash takes pairs.
local SLICE = 4000

local function whole(text)
  local number = tonumber(text)
  return number and number >= 0 and number % 1 == 0 and number or nil
end

local function set_pairs(key, args, first, last)
  while first <= last do
    local upto = math.min(first + SLICE - 1, last)
    redis.call('HSET', key, unpack(args, first, upto))
    first = upto + 1
  end
end

local function drop(key, args, first, last)
  while first <= last do
    local upto = math.min(first + SLICE - 1, last)
    redis.call('HDEL', key, unpack(args, first, upto))
    first = upto + 1
  end
end

local function get(key, args, first, last)
  if last - first < SLICE then
    return redis.call('HMGET', key, unpack(args, first, last))
  end
  local found = {}
  while first <= last do
    local upto = math.min(first + SLICE - 1, last)
    for _, value in ipairs(redis.call('HMGET', key, unpack(args, first, upto))) do
      found[#found + 1] = value
    end
    first = upto + 1
  end
  return found
end

-- `count` fields of a hash, named from args[at] on; with -1 all of it, names and values.
local function list(key, args, at, count)
  if count < 0 then
    return redis.call('HGETALL', key)
  end
  return count == 0 and {} or get(key, args, at, at + count - 1)
end

-- The partition as one generation sees it: its role, what stands, and how far it may write (false: no limit).
-- Answers nil and a reply when the view is lost, or when the caller believes another generation to be live.
local function standing(role_key, offset_key, live_offset_key, generation, believed)
  local role = redis.call('HMGET', role_key, 'live', 'state', 'until', 'effects_from')
  local stands = redis.call('HMGET', offset_key, 'offset', 'epoch')
  if not role[1] or not stands[1] then
    return nil, {'lost'}
  end
  if role[1] ~= believed then
    return nil, {'believed', role[1]}
  end
  local limit = false
  if role[1] ~= generation then
    limit = redis.call('HGET', live_offset_key, 'offset') or '0'
  elseif role[2] == 'frozen' then
    limit = stands[1]
  end
  return {
    own = role[1] == generation,
    state = role[2],
    upto = role[3],
    effects_from = tonumber(role[4] or '0'),
    offset = stands[1],
    epoch = stands[2],
    limit = limit,
  }
end

-- The source offset that an outbox entry begins with: msgpack, an array header and then an unsigned number.
local function source_offset(entry)
  local kind = string.byte(entry, 2)
  if kind < 0x80 then
    return kind
  end
  local number = 0
  for i = 3, 2 + 2 ^ (kind - 0xcc) do
    number = number * 256 + string.byte(entry, i)
  end
  return number
end

-- Whether the arguments are complete: counts that are whole and add up to what was sent.
local function complete(shape, keys, args, fixed_keys, fixed_args)
  for _, count in ipairs(shape) do
    if type(count) ~= 'number' or not whole(count) then
      return false
    end
  end
  local patients, total = shape[1], 0
  if #shape ~= 5 + 3 * patients or #keys ~= fixed_keys + 2 * patients then
    return false
  end
  for i = 6, #shape, 3 do
    total = total + 2 * shape[i] + shape[i + 1] + 2 * shape[i + 2]
  end
  return #args == fixed_args + total + shape[2] + 2 * shape[3] + 2 * shape[4] + 2 * shape[5]
end

-- Takes ids back from the patient that has them; another's stay.
local function close(rx_key, args, first, last)
  for i = first, last, 2 do
    if redis.call('HGET', rx_key, args[i]) == args[i + 1] then
      redis.call('HDEL', rx_key, args[i])
    end
  end
end

-- Notes that an id which another patient had first came under this one too; readers hide the later one by it.
local function dispute(rx_key, id, patient)
  local others = redis.call('HGET', rx_key, '!' .. id) or ''
  if not string.find(others, patient, 1, true) then
    redis.call('HSET', rx_key, '!' .. id, others .. patient)
  end
end

-- Gives ids to patients; the first one stays. Answers the ids that another patient has, with that patient.
local function open(rx_key, args, first, last)
  local taken = {}
  for i = first, last, 2 do
    if redis.call('HSETNX', rx_key, args[i], args[i + 1]) == 0 then
      local owner = redis.call('HGET', rx_key, args[i])
      if owner ~= args[i + 1] then
        dispute(rx_key, args[i], args[i + 1])
        taken[#taken + 1] = args[i]
        taken[#taken + 1] = owner
      end
    end
  end
  return taken
end

-- Changes of patients, from KEYS[key] and ARGV[at] on. Answers the argument after them.
local function change(shape, keys, args, key, at)
  for i = 6, #shape, 3 do
    local put, dropped, remembered = 2 * shape[i], shape[i + 1], 2 * shape[i + 2]
    if put > 0 then
      set_pairs(keys[key], args, at, at + put - 1)
    end
    at = at + put
    if dropped > 0 then
      drop(keys[key], args, at, at + dropped - 1)
    end
    at = at + dropped
    if remembered > 0 then
      set_pairs(keys[key + 1], args, at, at + remembered - 1)
    end
    at = at + remembered
    key = key + 2
  end
  return at
end

-- KEYS: role, offset, the live generation's offset, outbox, rx, parked, then hash and event index of each patient.
-- ARGV: generation, believed live one, expected offset, epoch, next offset, channel, packed counts (patients, effects,
-- opened, closed, parked, then put, drop, remember per patient), the mark of the last record ('': the one that is there
-- stays), then the values in the order of the counts.
-- Answers 'ok', the ids taken by others, and from which offset on effects went out (false: none did, it is not the live one);
-- or why not, offset, epoch, limit.
local function write(keys, args)
  local now, other = standing(keys[1], keys[2], keys[3], args[1], args[2])
  if not now then
    return other
  end
  local expected, next_offset = whole(args[3]), whole(args[5])
  local shape = cmsgpack.unpack(args[7])
  if not (expected and next_offset and expected < next_offset and complete(shape, keys, args, 6, 8)) then
    return redis.error_reply('BADARGUMENT the write does not add up')
  end
  local why = false
  if now.own and now.limit then
    why = 'role'
  elseif tonumber(now.offset) ~= expected then
    why = 'offset'
  elseif now.epoch ~= args[4] then
    why = 'epoch'
  elseif now.limit and next_offset > tonumber(now.limit) then
    why = 'capped'
  end
  if why then
    return {why, now.offset, now.epoch, now.limit}
  end
  -- From here on nothing is refused.
  local at = change(shape, keys, args, 7, 9)
  for i = at, at + shape[2] - 1 do
    if now.own and (now.effects_from <= expected or now.effects_from <= source_offset(args[i])) then
      redis.call('XADD', keys[4], '*', 'e', args[i])
    end
  end
  at = at + shape[2]
  local opened_at, closed_at = at, at + 2 * shape[3]
  close(keys[5], args, closed_at, closed_at + 2 * shape[4] - 1)
  local taken = open(keys[5], args, opened_at, closed_at - 1)
  at = closed_at + 2 * shape[4]
  set_pairs(keys[6], args, at, #args)
  if args[8] == '' then
    redis.call('HSET', keys[2], 'offset', args[5])
  else
    redis.call('HSET', keys[2], 'offset', args[5], 'last', args[8])
  end
  if now.own then
    if now.state == 'building' and next_offset >= tonumber(now.upto) then
      redis.call('HSET', keys[1], 'state', 'live')
    end
    redis.call('SPUBLISH', args[6], args[5])
  end
  return {'ok', taken, now.own and now.effects_from}
end

-- Notes records as released, before they are parked no more: until the entry that is the last for them was sent.
local function release(parked_key, released_key, args, first, last, entry_id)
  for i = first, last do
    local note = redis.call('HGET', parked_key, args[i])
    if note then
      redis.call('HSET', released_key, args[i], entry_id .. ' ' .. note)
    end
  end
end

-- Puts a patient that was folded anew in the place of what stands, unless its index has grown or anybody else wrote a
-- patient meanwhile; raises the epoch by what it is told, so that what others have read is stale.
-- What was parked and sends something now stays noted, with the last entry of that, until all of it was sent. Refused while
-- the live view is being made: what is judged later would owe effects to it that come before the relay's progress; and while
-- a switch is under way, also beside: what it would send goes nowhere if that one becomes live.
-- KEYS: role, offset, the live generation's offset, outbox, rx, parked, the patient's hash and event index, released.
-- ARGV: generation, believed live one, epoch, what it rises by, size of the index, packed counts (put, remember, effects,
-- opened, closed, unparked, parked, forget, unchanged), then the values in that order. Answers as `write`, and the offset; all effects go out.
local function rewrite(keys, args)
  local now, other = standing(keys[1], keys[2], keys[3], args[1], args[2])
  if not now then
    return other
  end
  local counts = cmsgpack.unpack(args[6])
  local total = 2 * (counts[1] + counts[2] + counts[4] + counts[5] + counts[7] + counts[9])
  total = total + counts[3] + counts[6] + counts[8]
  if #keys ~= 9 or #counts ~= 9 or #args ~= 6 + total or not whole(args[3]) or not whole(args[4]) then
    return redis.error_reply('BADARGUMENT the rewrite does not add up')
  end
  local why = false
  if now.own and (now.limit or now.state == 'building') or now.state == 'frozen' then
    why = 'role'
  elseif now.epoch ~= args[3] then
    why = 'epoch'
  elseif redis.call('HLEN', keys[8]) ~= tonumber(args[5]) then
    why = 'index'
  else
    for i = #args - 2 * counts[9] + 1, #args, 2 do
      if redis.call('HGET', keys[7], args[i]) ~= args[i + 1] then
        why = 'index'
      end
    end
  end
  if why then
    return {why, now.offset, now.epoch, now.limit}
  end
  -- From here on nothing is refused.
  redis.call('DEL', keys[7])
  local at = 7
  set_pairs(keys[7], args, at, at + 2 * counts[1] - 1)
  at = at + 2 * counts[1]
  local forget_at = #args - 2 * counts[9] - counts[8] + 1
  drop(keys[8], args, forget_at, forget_at + counts[8] - 1)
  set_pairs(keys[8], args, at, at + 2 * counts[2] - 1)
  at = at + 2 * counts[2]
  local last_entry = false
  for i = at, at + counts[3] - 1 do
    if now.own then
      last_entry = redis.call('XADD', keys[4], '*', 'e', args[i])
    end
  end
  at = at + counts[3]
  local closed_at = at + 2 * counts[4]
  close(keys[5], args, closed_at, closed_at + 2 * counts[5] - 1)
  local taken = open(keys[5], args, at, closed_at - 1)
  local parked_at = closed_at + 2 * counts[5] + counts[6]
  if last_entry then
    release(keys[6], keys[9], args, parked_at - counts[6], parked_at - 1, last_entry)
  end
  drop(keys[6], args, parked_at - counts[6], parked_at - 1)
  set_pairs(keys[6], args, parked_at, forget_at - 1)
  redis.call('HINCRBY', keys[2], 'epoch', args[4])
  return {'ok', taken, now.own and 0, now.offset}
end

-- Puts other notes to records that are parked already, and raises the epoch as every write of a patient does.
-- KEYS: role, offset, the live generation's offset, parked. ARGV: generation, believed live one, epoch, what it rises by,
-- then offsets and notes. Answers as `rewrite`; no effects go out.
local function note_parked(keys, args)
  local now, other = standing(keys[1], keys[2], keys[3], args[1], args[2])
  if not now then
    return other
  end
  local why = false
  if now.own and now.limit then
    why = 'role'
  elseif now.epoch ~= args[3] then
    why = 'epoch'
  end
  if why then
    return {why, now.offset, now.epoch, now.limit}
  end
  for i = 5, #args - 1, 2 do
    if redis.call('HEXISTS', keys[4], args[i]) == 1 then
      redis.call('HSET', keys[4], args[i], args[i + 1])
    end
  end
  redis.call('HINCRBY', keys[2], 'epoch', args[4])
  return {'ok', {}, false, now.offset}
end

-- The role: live generation, state, and the offset it must reach to turn live. Answers nil and a reply when there is none,
-- or when the caller believes another generation to be live.
local function believed_role(role_key, believed)
  local role = redis.call('HMGET', role_key, 'live', 'state', 'until')
  if not role[1] then
    return nil, {'lost'}
  end
  if role[1] ~= believed then
    return nil, {'believed', role[1]}
  end
  return role
end

-- KEYS: role, offset, then the hashes to look into. ARGV: generation, packed counts of fields per hash (-1: all of it),
-- then the fields. Answers 'ok', offset, epoch, state, the offset it must reach to turn live, then a list per hash.
local function look(keys, args)
  local role, other = believed_role(keys[1], args[1])
  if not role then
    return other
  end
  local stands = redis.call('HMGET', keys[2], 'offset', 'epoch', 'last')
  if not stands[1] then
    return {'lost'}
  end
  local reply = {'ok', stands[1], stands[2], role[2], role[3], stands[3] or ''}
  local at = 3
  for i, count in ipairs(cmsgpack.unpack(args[2])) do
    reply[6 + i] = list(keys[2 + i], args, at, count)
    at = at + math.max(count, 0)
  end
  return reply
end

-- Deletes from the outbox what follows from records at or beyond an offset.
local function unsend(outbox_key, offset)
  for _, entry in ipairs(redis.call('XRANGE', outbox_key, '-', '+')) do
    if source_offset(entry[2][2]) >= offset then
      redis.call('XDEL', outbox_key, entry[1])
    end
  end
end

-- Begins a generation in one partition; again is harmless. Where no role stands, the generation becomes the live one,
-- building until its offset has reached `until`, and withholding records from being judged; not so one that is to begin
-- beside the live one. A role of the generation that is to be replaced counts as none, and what that one was to send of what
-- is judged again goes with it: left in the outbox it would come before effects of older records, and take the relay's
-- progress beyond them. Where another role stands, nothing is begun but beside it: a generation that came so far there,
-- without effects and without what is withheld, must not be made the live one afterwards.
-- The first epoch is given, so that none comes twice where a partition is lost and begun again.
-- KEYS: role, offset, withheld, outbox, released. ARGV: generation, role epoch, until, effects from, which one is to be
-- replaced, 1 to begin beside, first epoch, then offsets that are withheld, each with its reason.
-- Answers 'ok', or 'retired', or 'alone', or 'other'.
local function begin(keys, args)
  local role = redis.call('HMGET', keys[1], 'live')
  local stands = redis.call('HGET', keys[2], 'offset')
  local is_replaced = role[1] and role[1] == args[5]
  if is_replaced then
    role[1] = false
  end
  if role[1] and stands then
    return {'ok'}
  end
  if role[1] == args[1] then
    return {'retired'}
  end
  if not role[1] and args[6] == '1' then
    return {'alone'}
  end
  if role[1] and args[6] ~= '1' then
    return {'other'}
  end
  local are_whole = whole(args[2]) and whole(args[3]) and whole(args[4]) and whole(args[7]) and #args % 2 == 1
  for i = 8, #args, 2 do
    are_whole = are_whole and whole(args[i])
  end
  if not are_whole then
    return redis.error_reply('BADARGUMENT a generation begins with whole numbers')
  end
  if not stands then
    redis.call('HSET', keys[2], 'offset', '0', 'epoch', args[7])
    stands = '0'
  end
  if not role[1] then
    local state = tonumber(stands) >= tonumber(args[3]) and 'live' or 'building'
    redis.call('HSET', keys[1], 'epoch', args[2], 'live', args[1], 'state', state, 'token', '',
      'until', args[3], 'effects_from', args[4])
    redis.call('DEL', keys[3])
    if is_replaced then
      unsend(keys[4], tonumber(stands))
      if stands == '0' then
        redis.call('DEL', keys[5])
      end
    end
    set_pairs(keys[3], args, 8, #args)
  end
  return {'ok'}
end

-- Puts a role in the place of the one that the caller saw; compare-and-set on epoch, live generation, state and token.
-- KEYS: role. ARGV: those four as seen, those four as they shall be, effects from. Answers 1 when it was put.
local function turn(keys, args)
  local role = redis.call('HMGET', keys[1], 'epoch', 'live', 'state', 'token')
  for i = 1, 4 do
    if role[i] ~= args[i] then
      return 0
    end
  end
  redis.call('HSET', keys[1], 'epoch', args[5], 'live', args[6], 'state', args[7], 'token', args[8])
  if args[9] ~= '' then
    redis.call('HSET', keys[1], 'effects_from', args[9])
  end
  return 1
end

-- Puts fields into the pointer `live` if three of its fields are as the caller saw them ('' where there is none).
-- KEYS: live. ARGV: epoch, generation, token as seen, then fields and values. Answers 1 when they were put.
local function point(keys, args)
  local pointer = redis.call('HMGET', keys[1], 'epoch', 'generation', 'token')
  for i = 1, 3 do
    if (pointer[i] or '') ~= args[i] then
      return 0
    end
  end
  redis.call('HSET', keys[1], unpack(args, 4))
  return 1
end

-- Takes or keeps the relay's lease of a partition. KEYS: lease. ARGV: owner, milliseconds. Answers 1 when it is ours.
local function lease(keys, args)
  local owner = redis.call('GET', keys[1])
  if owner and owner ~= args[1] then
    return 0
  end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return 1
end

-- Deletes what was acknowledged, for the owner of the lease alone; what was released is done with once no entry is left
-- up to its last one. KEYS: lease, outbox, released. ARGV: owner, then entry ids. Answers how many were deleted, or -1
-- when the lease is another's.
local function relayed(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return -1
  end
  local deleted = redis.call('XDEL', keys[2], unpack(args, 2))
  local released = redis.call('HGETALL', keys[3])
  for i = 1, #released, 2 do
    local last_entry = string.match(released[i + 1], '^[^ ]+')
    if #redis.call('XRANGE', keys[2], '-', last_entry, 'COUNT', 1) == 0 then
      redis.call('HDEL', keys[3], released[i])
    end
  end
  return deleted
end

-- A hash, or of one that is larger about so many fields: nobody waits for a hash without bound.
local function some(key, at_most)
  if redis.call('HLEN', key) <= at_most then
    return redis.call('HGETALL', key)
  end
  return redis.call('HSCAN', key, '0', 'COUNT', at_most)[2]
end

-- What of a partition is unsent, and how far its live generation has come, at one moment.
-- KEYS: role, outbox, released, then offset, parked and withheld of the generation that is believed live.
-- ARGV: that generation, how many fields of a hash, an outbox entry ('': any). Answers 'lost', 'believed' and which, or
-- 'ok', offset, 1 when that entry waits, how many are parked or released, and what is parked, released, and, while it builds,
-- withheld.
local function unsent(keys, args)
  local role, other = believed_role(keys[1], args[1])
  if not role then
    return other
  end
  local offset, at_most = redis.call('HGET', keys[4], 'offset'), whole(args[2])
  if not offset then
    return {'lost'}
  end
  if not at_most then
    return redis.error_reply('BADARGUMENT how many is a whole number')
  end
  local first, last = '-', '+'
  if args[3] ~= '' then
    first, last = args[3], args[3]
  end
  local waits = #redis.call('XRANGE', keys[2], first, last, 'COUNT', 1)
  local withheld = role[2] == 'building' and some(keys[6], at_most) or {}
  local parked = some(keys[5], at_most)
  local count = redis.call('HLEN', keys[5]) + redis.call('HLEN', keys[3])
  return {'ok', offset, waits, count, parked, some(keys[3], at_most), withheld}
end

-- Whether two hashes, as flat lists, hold the same.
local function same(one, other)
  if #one ~= #other then
    return false
  end
  local held = {}
  for i = 1, #one, 2 do
    held[one[i]] = one[i + 1]
  end
  for i = 1, #other, 2 do
    if held[other[i]] ~= other[i + 1] then
      return false
    end
  end
  return true
end

-- Compares patients in two generations. KEYS: offset of one, of the other, then hash and index of each patient in one and
-- in the other. Answers both offsets, and for each patient who differs: a number from 1 on, and the four hashes.
local function compare(keys, args)
  local reply = {redis.call('HGET', keys[1], 'offset'), redis.call('HGET', keys[2], 'offset')}
  for i = 3, #keys, 4 do
    local list, index = redis.call('HGETALL', keys[i]), redis.call('HGETALL', keys[i + 1])
    local its_list, its_index = redis.call('HGETALL', keys[i + 2]), redis.call('HGETALL', keys[i + 3])
    if not (same(list, its_list) and same(index, its_index)) then
      local at = #reply
      reply[at + 1], reply[at + 2], reply[at + 3] = (i + 1) / 4, list, index
      reply[at + 4], reply[at + 5] = its_list, its_index
    end
  end
  return reply
end

-- Deletes the offset of a generation that is not the live one: from then on nobody reads or writes it.
-- KEYS: role, offset. ARGV: generation. Answers 1, or 0 for the live one.
local function forget(keys, args)
  if redis.call('HGET', keys[1], 'live') == args[1] then
    return 0
  end
  redis.call('DEL', keys[2])
  return 1
end

-- Notes that a worker works on a generation, by the store's clock. KEYS: the generation's workers.
-- ARGV: worker ('': nobody), for how many milliseconds (0: not any more). Answers who works on it.
local function attend(keys, args)
  local now = redis.call('TIME')
  local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', now_ms)
  if args[1] ~= '' then
    if tonumber(args[2]) > 0 then
      redis.call('ZADD', keys[1], now_ms + args[2], args[1])
      redis.call('PEXPIRE', keys[1], args[2])
    else
      redis.call('ZREM', keys[1], args[1])
    end
  end
  return redis.call('ZRANGE', keys[1], 0, -1)
end

-- `allow-oom`: what a full Redis is emptied by, and what puts a few words in the place of others for that: the relay's part, and a
-- generation's way out. All else that writes is refused there.
redis.register_function{function_name='look_@RELEASE@', callback=look, flags={'no-writes'}}
redis.register_function{function_name='write_@RELEASE@', callback=write}
redis.register_function{function_name='rewrite_@RELEASE@', callback=rewrite}
redis.register_function{function_name='note_parked_@RELEASE@', callback=note_parked}
redis.register_function{function_name='begin_@RELEASE@', callback=begin}
redis.register_function{function_name='turn_@RELEASE@', callback=turn, flags={'allow-oom'}}
redis.register_function{function_name='point_@RELEASE@', callback=point, flags={'allow-oom'}}
redis.register_function{function_name='compare_@RELEASE@', callback=compare, flags={'no-writes'}}
redis.register_function{function_name='forget_@RELEASE@', callback=forget, flags={'allow-oom'}}
redis.register_function{function_name='attend_@RELEASE@', callback=attend, flags={'allow-oom'}}
redis.register_function{function_name='lease_@RELEASE@', callback=lease, flags={'allow-oom'}}
redis.register_function{function_name='relayed_@RELEASE@', callback=relayed, flags={'allow-oom'}}
redis.register_function{function_name='unsent_@RELEASE@', callback=unsent, flags={'no-writes'}}

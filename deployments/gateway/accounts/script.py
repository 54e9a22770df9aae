"""The one script that checks, reserves and settles: all of it or nothing, whoever else asks.

``KEYS`` are those of :class:`weir.accounts.AccountKeys`; ``ARGV[1]`` is one of the operations of
:mod:`deployments.gateway.accounts.amounts`, packed by MessagePack. Windows are by Redis' own clock,
so that gateways agree on them.

In ``used``, each scope has ``{minute, day, requests, prompt and output tokens of the minute, the
same of the day, concurrent}``, and ``$`` has ``{month, nano-USD, steps that were told}``. These
count what was used and what is reserved. In ``held``, ``GATEWAY:ID`` has a reservation: ``{month,
minute, day, nano-USD, scope, requests, prompt, output, concurrent, scope, …}``. Once it was taken
back because its gateway was gone, it has only ``{when}``: should that gateway come again with what
it has used, this is how it is known that it was not counted yet. ``#GATEWAY`` is how many it has.

A gateway whose lease is over is gone, unless all leases are over: then it is Redis that was away
(or nobody asked), and everybody gets another lease before anything is taken back.

With every bound of three scopes and a budget it takes Redis 20 µs to reserve, half of it for the
messages' own formats.
"""

from __future__ import annotations

import hashlib
from typing import Final

SCRIPT: Final = """
local USED, HELD, LEASES, STEPS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local DAY, KEPT, NEVER = 86400000, 40 * 86400000, 4e15
local floor, max, call = math.floor, math.max, redis.call
local pack, unpacked = cmsgpack.pack, cmsgpack.unpack
local op = unpacked(ARGV[1])
local kind, now, who, lease = op[1], op[2], op[3], op[4]
if now == 0 then
  local clock = call('TIME')
  now = clock[1] * 1000 + floor(clock[2] / 1000)
end
local minute, day = floor(now / 60000), floor(now / DAY)

local function month_of(days)
  local z = days + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local y = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * y + floor(y / 4) - floor(y / 100))
  return (y + 400 * era) * 12 + floor((5 * doy + 2) / 153) + 2
end

local accounts, money, changed = {}, nil, false
local function account(name)
  local found = accounts[name]
  if not found then
    local raw = call('HGET', USED, name)
    found = raw and unpacked(raw) or {minute, day, 0, 0, 0, 0, 0, 0, 0}
    if found[1] < minute then found[1], found[3], found[4], found[5] = minute, 0, 0, 0 end
    if found[2] < day then found[2], found[6], found[7], found[8] = day, 0, 0, 0 end
    accounts[name] = found
  end
  return found
end
local function budget()
  if not money then
    local month = month_of(day)
    local raw = call('HGET', USED, '$')
    money = raw and unpacked(raw) or {month, 0, {}}
    if money[1] < month then money = {month, 0, {}} end
  end
  return money
end
local function count(found, sign, requests, prompt, output, minutely, daily)
  if minutely then
    found[3] = max(0, found[3] + sign * requests)
    found[4] = max(0, found[4] + sign * prompt)
    found[5] = max(0, found[5] + sign * output)
  end
  if daily then
    found[6] = max(0, found[6] + sign * requests)
    found[7] = max(0, found[7] + sign * prompt)
    found[8] = max(0, found[8] + sign * output)
  end
  changed = true
end
local function release(hold)
  if hold[4] > 0 and budget()[1] == hold[1] then
    money[2] = max(0, money[2] - hold[4])
    changed = true
  end
  for i = 5, #hold, 5 do
    local found = account(hold[i])
    local minutely, daily = hold[2] == found[1], hold[3] == found[2]
    count(found, -1, hold[i + 1], hold[i + 2], hold[i + 3], minutely, daily)
    found[9] = max(0, found[9] - hold[i + 4])
  end
end
local function save()
  if not changed then return end
  local fields = {}
  for name, found in pairs(accounts) do
    fields[#fields + 1] = name
    fields[#fields + 1] = pack(found)
  end
  if money then
    fields[#fields + 1] = '$'
    fields[#fields + 1] = pack(money)
  end
  if #fields > 0 then call('HSET', USED, unpack(fields)) end
end

local function take_back(gone)
  local listed = call('HGETALL', HELD)
  for i = 1, #listed, 2 do
    local owner = string.match(listed[i], '^([^:#]*):')
    local hold = owner and unpacked(listed[i + 1])
    if hold and #hold == 1 then
      if hold[1] < now - DAY then call('HDEL', HELD, listed[i]) end
    elseif hold and gone[owner] then
      release(hold)
      call('HSET', HELD, listed[i], pack({now}))
    end
  end
end
local over = call('ZRANGEBYSCORE', LEASES, '-inf', now)
if #over > 0 then
  local alone = tonumber(call('ZREVRANGE', LEASES, 0, 0, 'WITHSCORES')[2]) <= now
  local gone, any = {}, false
  for _, name in ipairs(over) do
    if alone then
      call('ZADD', LEASES, now + lease, name)
    elseif name ~= who then
      gone[name] = true
      any = any or tonumber(call('HGET', HELD, '#' .. name) or 0) > 0
      call('HDEL', HELD, '#' .. name)
      call('ZREM', LEASES, name)
    end
  end
  if any then take_back(gone) end
end
call('ZADD', LEASES, now + lease, who)

if kind == 'settle' then
  for n = 5, #op do
    local item = op[n]  -- id, whether it is sent for the first time, nano-USD, scope, 3 amounts, …
    local field = who .. ':' .. item[1]
    local raw = call('HGET', HELD, field)
    if raw or item[2] == 1 then
      local hold = raw and unpacked(raw)
      if hold and #hold > 1 then
        release(hold)
        call('HINCRBY', HELD, '#' .. who, -1)
      else
        hold = nil
      end
      if raw then call('HDEL', HELD, field) end
      if item[3] > 0 and (not hold or hold[1] == budget()[1]) then
        budget()[2] = money[2] + item[3]
        changed = true
      end
      for i = 4, #item, 4 do
        local found = account(item[i])
        local minutely = not hold or hold[2] == found[1]
        local daily = not hold or hold[3] == found[2]
        count(found, 1, item[i + 1], item[i + 2], item[i + 3], minutely, daily)
      end
    end
  end
  save()
  for _, key in ipairs(KEYS) do call('PEXPIRE', key, KEPT) end
  return {1}
end
if kind == 'renew' then
  save()
  return {1}
end

-- reserve: scopes {name, 4 amounts, bound, most, bound, most, ...}, holds {id, what is
-- kept of it, ...}, nano-USD in all, the budget, its steps {percent, nano-USD, webhook, spill,
-- refuse}, whether the request may spill, and whether it is only told of what is used already
local scopes, holds, nano, limit, steps, may_spill, told = unpack(op, 5)
if told == 1 and call('HEXISTS', HELD, who .. ':' .. holds[1]) == 1 then
  save()
  return {1}
end
local code, scope, bound, wait = 1, 0, 0, -1
for i = 1, #scopes do
  local asked = scopes[i]
  local found = account(asked[1])
  for at = 6, #asked, 2 do
    local b, most = asked[at], asked[at + 1]
    local add = b == 7 and asked[5] or asked[2 + (b - 1) % 3]
    if add > 0 and found[2 + b] + add > most then
      local clears = 1000
      if add > most then
        clears = NEVER
      elseif b <= 3 then
        clears = (found[1] + 1) * 60000 - now
      elseif b <= 6 then
        clears = (found[2] + 1) * DAY - now
      end
      if clears > wait then code, scope, bound, wait = 0, i, b, clears end
    end
  end
end
if #steps > 0 and told == 0 then
  local would = budget()[2] + nano
  local spill, refuse = false, false
  for _, step in ipairs(steps) do
    if would > step[2] then
      spill = spill or (step[4] == 1 and may_spill == 1)
      refuse = refuse or step[5] == 1
    end
  end
  if code == 1 and spill then code = -2 elseif code == 1 and refuse then code = -1 end
  for _, step in ipairs(steps) do
    local news = code ~= 0 and step[3] == 1 and would >= step[2]
    for _, percent in ipairs(money[3]) do news = news and percent ~= step[1] end
    if news then
      table.insert(money[3], step[1])
      changed = true
      call('HSETNX', STEPS, money[1] .. ':' .. step[1], string.format(
        '{"spent":"%.0f","budget":"%.0f","at":"%.0f"}', would, limit, now))
    end
  end
end
if told == 1 then code = 1 end
if code == 1 then
  local month = 0
  if nano > 0 then
    month = budget()[1]
    money[2] = money[2] + nano
    changed = true
  end
  for i = 1, #scopes do
    local asked = scopes[i]
    local found = accounts[asked[1]]
    count(found, 1, asked[2], asked[3], asked[4], true, true)
    found[9] = found[9] + asked[5]
    minute, day = max(minute, found[1]), max(day, found[2])
  end
  local fields = {}
  for i = 1, #holds, 2 do
    local hold = holds[i + 1]
    hold[1], hold[2], hold[3] = month, minute, day
    fields[i], fields[i + 1] = who .. ':' .. holds[i], pack(hold)
  end
  call('HSET', HELD, unpack(fields))
  call('HINCRBY', HELD, '#' .. who, #holds / 2)
end
save()
local reply = {code, scope, bound, wait, now, money and money[2] or 0}
for i = 1, #scopes do reply[6 + i] = pack(accounts[scopes[i][1]]) end
return reply
"""

#: By which Redis knows the script once it has run it.
DIGEST: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

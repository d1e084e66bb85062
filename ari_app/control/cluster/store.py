"""What is common to the machines, in Valkey or Redis.

Everything there is a lease with a name: done twice it changes nothing, and what nobody renews goes
by itself. So a request is never sent again by the client library, and an answer that was lost is
made up for by the next beat. All keys have one hash tag, for Valkey's own cluster mode.

| key | what |
|---|---|
| `front:ASTERISK` | hash: `holder`, `token`; goes with the lease |
| `token` | the last token; a new one is larger, and not below the server's time |
| `machines` | sorted set of machines by when they are gone |
| `machine:NAME` | what it tells of itself |
| `places` | sorted set: each place that is held, `NAME#NUMBER`, by when it is free again |
| `calls`, `owners` | sorted set of calls by when they are nobody's; hash: which machine has one |
| `key:KEY` | the machine that was first asked with an Idempotency-Key, and is there |
| `deleted` | stream: the calls that were deleted, with the paths of their recordings |
| `followers` | hash: up to when, in ms, a machine has followed them for good |
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ari_app.control.cluster.lease import TTL, Grant
from ari_app.control.cluster.view import Machine, StoreAway

LEASE_SECONDS: Final = 10.0
"""After so long without a renewal a place is free again, and a call is nobody's."""
_ANSWER_SECONDS: Final = 0.5
_BLOCK_SECONDS: Final = 2.0
_KEEP_DELETED_MS: Final = 30 * 24 * 3600 * 1000
"""The names of recordings have the numbers of callers: no longer than a machine may be away."""
_AGAIN_DELETED_MS: Final = 2 * 24 * 3600 * 1000
"""A machine that starts is told of so much again: what could not be removed yet, as from a disk
that was away, waited in memory alone."""
_FOLLOWS_SECONDS: Final = 3600.0
_KEEP_KEY_SECONDS: Final = 24 * 3600
_MOST_DELETED: Final = 1000
_Streams = list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]


@dataclass(frozen=True, slots=True)
class Beat:
    """What a beat has found.

    Attributes:
        grant: Whose the front's lease is.
        machines: Those that are there.
        places: How many places all of them hold.
        before: Who has beaten by this name last.
    """

    grant: Grant
    machines: tuple[Machine, ...]
    places: int
    before: Machine | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """A call that was deleted at another machine, or here.

    Attributes:
        entry: Its id in the stream.
        recordings: The paths of its recordings.
    """

    entry: str
    session_id: str
    recordings: tuple[str, ...]


# Each script takes the time from the server, so that no two machines' clocks are compared.
_PURGE: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
"""
_BEAT: Final = (
    _PURGE
    + """
-- KEYS: places calls owners machines machine token front
-- ARGV: name holder json ttl lease_ttl wants, and how many follow:
-- places held, places given back, calls here, calls no longer here
local ttl, free, at = tonumber(ARGV[4]), now + ARGV[5], 11
local function each(count, what)
  for i = at, at + count - 1 do what(ARGV[i]) end
  at = at + count
end
for _, call in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  redis.call('ZREM', KEYS[2], call)
  redis.call('HDEL', KEYS[3], call)
end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
redis.call('ZADD', KEYS[4], now + ttl, ARGV[1])
local before = redis.call('GET', KEYS[5])
redis.call('SET', KEYS[5], ARGV[3], 'PX', ARGV[4])
each(tonumber(ARGV[7]), function (place) redis.call('ZADD', KEYS[1], free, place) end)
each(tonumber(ARGV[8]), function (place) redis.call('ZREM', KEYS[1], place) end)
each(tonumber(ARGV[9]), function (call)
  redis.call('ZADD', KEYS[2], free, call)
  redis.call('HSET', KEYS[3], call, ARGV[1])
end)
each(tonumber(ARGV[10]), function (call)
  if redis.call('HGET', KEYS[3], call) == ARGV[1] then
    redis.call('ZREM', KEYS[2], call)
    redis.call('HDEL', KEYS[3], call)
  end
end)
local holder = redis.call('HGET', KEYS[7], 'holder')
if ARGV[6] == '1' and not holder then
  local token = math.max((tonumber(redis.call('GET', KEYS[6])) or 0) + 1, t[1] * 1000000 + t[2])
  redis.call('SET', KEYS[6], string.format('%.0f', token))
  redis.call('HSET', KEYS[7], 'holder', ARGV[2], 'token', string.format('%.0f', token))
  holder = ARGV[2]
end
if holder == ARGV[2] then
  if ARGV[6] == '1' then redis.call('PEXPIRE', KEYS[7], ttl) else
    redis.call('DEL', KEYS[7])
    holder = false
  end
end
return {holder or '', redis.call('HGET', KEYS[7], 'token') or redis.call('GET', KEYS[6]) or '0',
  redis.call('ZCARD', KEYS[1]), redis.call('ZRANGE', KEYS[4], 0, -1),
  before or ''}
"""
)
_CLAIM: Final = (
    _PURGE
    + """
-- KEYS: places; ARGV: place lease_ttl limit
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3])
then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
"""
)
_KEEP_KEY: Final = """
-- KEYS: key machines; ARGV: machine keep_seconds
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local first = redis.call('GET', KEYS[1])
if first and tonumber(redis.call('ZSCORE', KEYS[2], first) or 0) > now then return first end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ARGV[1]
"""


_LEAVE: Final = """
-- KEYS: machines machine front; ARGV: name run holder
local told = redis.call('GET', KEYS[2])
if told and cjson.decode(told).run == ARGV[2] then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2])
end
if redis.call('HGET', KEYS[3], 'holder') == ARGV[3] then redis.call('DEL', KEYS[3]) end
"""


_FORGET: Final = """
-- KEYS: deleted followers; ARGV: follower, or nothing; again_ms keep_ms
local t = redis.call('TIME')
local now = t[1] * 1000
if ARGV[1] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', now - ARGV[2]))
end
local oldest, all = now - ARGV[3], now
local told = redis.call('HGETALL', KEYS[2])
local followers = 0
for i = 1, #told, 2 do
  local at = tonumber(told[i + 1])
  if at < oldest then redis.call('HDEL', KEYS[2], told[i]) else
    followers = followers + 1
    all = math.min(all, at)
  end
end
if followers > 0 then oldest = math.max(oldest, all) end
-- To the entry: whole nodes alone, as by `~`, leave a hundred calls, perhaps for years.
redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', oldest))
"""


@dataclass(frozen=True, slots=True)
class Leases:
    """What changes of a machine's leases: all of them again, now and then; only what is new else.

    Attributes:
        held: Places that it holds.
        given_back: Places that it holds no more.
        here: Calls that it has.
        gone: Calls that it has no more.
    """

    held: Sequence[str] = ()
    given_back: Sequence[str] = ()
    here: Sequence[str] = ()
    gone: Sequence[str] = ()


class Store:
    """Valkey or Redis: `async with Store(url, "voice-agent") as store`.

    Every method raises `StoreAway` within a second where there is no answer.

    Args:
        url: As in `CLUSTER_URL`.
        app: The application that the dialplan names; each has keys of its own.
    """

    def __init__(self, url: str, app: str) -> None:
        self._prefix = f"ari-app:{{{app}}}:"
        self._redis = _client(url, _ANSWER_SECONDS)
        # What blocks has a connection of its own, and a deadline beyond that of the server.
        self._waiting = _client(url, _BLOCK_SECONDS + _ANSWER_SECONDS)
        self._beat = self._redis.register_script(_BEAT)
        self._claim = self._redis.register_script(_CLAIM)
        self._leave = self._redis.register_script(_LEAVE)
        self._keep_key = self._redis.register_script(_KEEP_KEY)
        self._forget = self._redis.register_script(_FORGET)
        self._deleted = self._key("deleted")
        self._followers = self._key("followers")

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._redis.aclose()
        await self._waiting.aclose()

    async def ping(self) -> None:
        """Find out whether it answers, and lets us in."""
        with _answering():
            await self._now_ms()

    async def beat(
        self,
        machine: Machine,
        *,
        holder: str,
        wants: bool,
        leases: Leases = Leases(),
    ) -> Beat:
        """Say that a machine is there, and ask for the front's lease of its Asterisk.

        Args:
            machine: What it tells of itself.
            holder: The name that the lease is held by.
            wants: It shall be the front; one that no longer wants to gives the lease back.
            leases: What changes of the others.
        """
        keys = [
            self._key("places"),
            self._key("calls"),
            self._key("owners"),
            self._key("machines"),
            self._key(f"machine:{machine.name}"),
            self._key("token"),
            self._key(f"front:{machine.asterisk}"),
        ]
        wants = wants and bool(machine.asterisk)
        arguments: list[str | bytes | int] = [
            machine.name,
            holder,
            machine.to_json(),
            _ms(TTL),
            _ms(LEASE_SECONDS),
            int(wants),
            len(leases.held),
            len(leases.given_back),
            len(leases.here),
            len(leases.gone),
            *leases.held,
            *leases.given_back,
            *leases.here,
            *leases.gone,
        ]
        with _answering():
            found = await self._beat(keys=keys, args=arguments)
            names = [_text(name) for name in found[3]]
            told = await self._redis.mget([self._key(f"machine:{name}") for name in names])
        machines = (None if data is None else Machine.from_json(data) for data in told)
        return Beat(
            Grant(_text(found[0]), int(found[1])),
            tuple(each for each in machines if each is not None),
            int(found[2]),
            Machine.from_json(found[4]),
        )

    async def leave(self, machine: Machine, holder: str) -> None:
        """Say that a machine is no longer there, unless another run of it has come; its lease
        goes."""
        keys = [self._key("machines"), self._key(f"machine:{machine.name}")]
        keys.append(self._key(f"front:{machine.asterisk}"))
        with _answering():
            await self._leave(keys=keys, args=[machine.name, machine.run, holder])

    async def claim(self, place: str, limit: int) -> bool:
        """Take a place; False: there are as many as there may be. Again it is the same place."""
        with _answering():
            taken = await self._claim(
                keys=[self._key("places")], args=[place, _ms(LEASE_SECONDS), limit]
            )
        return bool(taken)

    async def owner(self, call: str) -> str | None:
        """Return the machine that has a call; None: none that is known."""
        with _answering():
            name = await self._redis.hget(self._key("owners"), call)
        return None if name is None else _text(name)

    async def keep_key(self, key: str, machine: str) -> str:
        """Keep who was first asked with an Idempotency-Key, for a day; return who that was.

        One that is gone has taken its answers with it: who is asked next is the first.
        """
        keys = [self._key(f"key:{key}"), self._key("machines")]
        with _answering():
            return _text(await self._keep_key(keys=keys, args=[machine, _KEEP_KEY_SECONDS]))

    # --- deletions

    async def tell_deleted(self, session_id: str, recordings: Sequence[str]) -> None:
        """Tell all machines that a call was deleted; who is away may read it within 30 days."""
        fields: dict[Any, Any] = {"session": session_id, "recordings": orjson.dumps(recordings)}
        with _answering():
            await self._redis.xadd(self._deleted, fields)
            await self._forget_deletions()

    async def deletions(self, machine: str, after: str = "") -> AsyncIterator[Deletion]:
        """Yield what was deleted after an entry of the stream, and what will be; never ends.

        It goes on after the last entry seen and not at the end, so that a pause loses nothing.

        Args:
            machine: Who reads; it has done what is to be done with an entry when it takes the next.
            after: The entry; empty: where this machine was when it was there last, and two days of
                before that again.
        """
        now = asyncio.get_running_loop().time
        follows_at = now()
        with _answering():
            await self._forget_deletions()
            after = after or _entry(await self._redis.hget(self._followers, machine))
        while True:
            with _answering():
                found = await self._waiting.xread(
                    {self._deleted: after}, count=_MOST_DELETED, block=int(_BLOCK_SECONDS * 1000)
                )
                if not found and now() >= follows_at:
                    await self._forget_deletions(machine)
                    follows_at = now() + _FOLLOWS_SECONDS
            for _, entries in cast(_Streams, found or ()):
                for entry, fields in entries:
                    after = _text(entry)
                    yield _deletion(after, fields)

    async def _forget_deletions(self, follower: str = "") -> None:
        """Forget what was deleted too long ago, and what all machines have followed.

        Args:
            follower: The machine that has read all that there is; empty: none is known to have.
        """
        keys = [self._deleted, self._followers]
        await self._forget(keys=keys, args=[follower, _AGAIN_DELETED_MS, _KEEP_DELETED_MS])

    async def _now_ms(self) -> int:
        seconds, _ = await self._redis.time()
        return int(seconds) * 1000

    def _key(self, name: str) -> str:
        return self._prefix + name


def _client(url: str, seconds: float) -> Redis:
    parts = urlsplit(url)
    scheme = "rediss" if parts.scheme in ("valkeys", "rediss") else "redis"
    client: Redis = Redis.from_url(
        parts._replace(scheme=scheme).geturl(),
        # By itself it tries ten times, and a command that was carried out may be so again.
        retry=Retry(NoBackoff(), 0),
        socket_timeout=seconds,
        socket_connect_timeout=_ANSWER_SECONDS,
        protocol=2,
    )
    return client


def _entry(followed: Any) -> str:
    """Return the entry after which a machine reads on."""
    return "0-0" if followed is None else f"{_text(followed)}-0"


def _deletion(entry: str, fields: Any) -> Deletion:
    told = {_text(name): _text(value) for name, value in fields.items()}
    try:
        paths = orjson.loads(told.get("recordings", "[]"))
    except orjson.JSONDecodeError:
        paths = []
    paths = [each for each in paths if isinstance(each, str)] if isinstance(paths, list) else []
    return Deletion(entry, told.get("session", ""), tuple(paths))


@contextmanager
def _answering() -> Iterator[None]:
    """Raise `StoreAway` where it does not answer, or refuses."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreAway(f"{type(error).__name__}: {error}".rstrip(": ")) from None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

"""A simulated Redis. It runs the library's real Lua scripts; the simulation controls its time and its faults.

It knows only the commands that the library uses. ``tests/store`` runs the same tests against it, against fakeredis
and against real servers, which shows that it answers as Redis does.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import hashlib
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import hiredis
import lupa.lua51 as lupa
import redis.exceptions

Id = tuple[int, int]
Fields = list[bytes]

#: The server's time when the loop's time is 0, in seconds since 1970.
BEGINNING = 1_700_000_000.0


def text(value: Any) -> bytes:
    """Converts an argument to the bytes that Redis receives."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return b"%.17g" % value
    return str(value).encode()


def parse(id: bytes, default: int = 0) -> Id:
    ms, _, n = id.partition(b"-")
    return int(ms), int(n) if n else default


def form(id: Id) -> bytes:
    return b"%d-%d" % id


class SimulatedStream:
    def __init__(self) -> None:
        self.ids: list[Id] = []
        self.fields: list[Fields] = []
        self.last: Id = (0, 0)

    def range(self, first: bytes, last: bytes) -> tuple[int, int]:
        low = 0 if first == b"-" else self._edge(first, bisect_left, bisect_right, 0)
        high = len(self.ids) if last == b"+" else self._edge(last, bisect_right, bisect_left, 1 << 62)
        return low, high

    def _edge(self, id: bytes, inclusive: Any, exclusive: Any, default: int) -> int:
        if id.startswith(b"("):
            return int(exclusive(self.ids, parse(id[1:], default)))
        return int(inclusive(self.ids, parse(id, default)))

    def item(self, i: int) -> list[Any]:
        return [form(self.ids[i]), self.fields[i]]


class Dataset:
    """All keys of a server. A snapshot is a copy of it."""

    def __init__(self) -> None:
        self.keys: dict[bytes, Any] = {}
        self.expires: dict[bytes, int] = {}


class SimulatedRedis:
    """The server.

    :param time: returns the time, in seconds.
    :param random: decides how long transmissions take, and what is lost when a connection breaks.
    """

    def __init__(self, time: Callable[[], float], random: Random) -> None:
        self.random = random
        self.data = Dataset()
        #: Which server it is: each one that takes over has another number.
        self.server = 1
        self.skew = 0  # how wrong its clock is, in ms
        self.reachable = True
        # dicts, not sets: they keep their order from run to run
        self.connections: dict[SimulatedRedisConnection, None] = {}
        self.readers: dict[Callable[[], None], None] = {}
        self.appended: list[Callable[[bytes, Id, Fields], None]] = []
        self._time = time
        #: Those that this server knows: one that has just started knows none, in whatever process it is simulated.
        self._scripts: dict[bytes, Any] = {}
        self._lua = _lua()
        self._lua.store = self

    @property
    def ms(self) -> int:
        return round((BEGINNING + self._time()) * 1000) + self.skew

    # -- faults -------------------------------------------------------------------------------------

    def cut(self, of: object = None) -> None:
        """Breaks all connections, or those of one owner. A command on its way may or may not be executed."""
        for connection in list(self.connections):
            if of is None or connection.owner is of:
                connection.end()

    def snapshot(self) -> Dataset:
        return copy.deepcopy(self.data)

    def fail_over(self, data: Dataset) -> None:
        """Another server takes over, which has this data."""
        self.data = copy.deepcopy(data)
        self.server += 1
        self.cut()

    # -- commands -----------------------------------------------------------------------------------

    def key(self, key: bytes, make: type[Any] | None = None) -> Any:
        deadline = self.data.expires.get(key)
        if deadline is not None and deadline <= self.ms:
            self._delete(key)
        value = self.data.keys.get(key)
        if value is None and make is not None:
            value = self.data.keys[key] = make()
        elif value is not None and make is not None and not isinstance(value, make):
            raise redis.exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def read(self, key: bytes, kind: type[Any]) -> Any:
        """Returns the value of a key, or an empty value of this kind if the key does not exist."""
        return kind() if self.key(key) is None else self.key(key, kind)

    def _delete(self, key: bytes) -> int:
        self.data.expires.pop(key, None)
        return int(self.data.keys.pop(key, None) is not None)

    def execute(self, command: Sequence[bytes]) -> Any:
        return getattr(self, "do_" + command[0].decode().lower())(*command[1:])

    def do_info(self, section: bytes) -> bytes:
        return b"maxmemory_policy:noeviction\r\nrun_id:%d\r\n" % self.server

    def do_time(self) -> Any:
        ms = self.ms
        return [b"%d" % (ms // 1000), b"%d" % (ms % 1000 * 1000)]

    def do_del(self, *keys: bytes) -> int:
        return sum(self._delete(key) for key in keys if self.key(key) is not None)

    def do_pexpire(self, key: bytes, ms: bytes) -> int:
        if self.key(key) is None:
            return 0
        self.data.expires[key] = self.ms + int(ms)
        return 1

    def do_pttl(self, key: bytes) -> int:
        if self.key(key) is None:
            return -2
        return self.data.expires[key] - self.ms if key in self.data.expires else -1

    def do_hget(self, key: bytes, field: bytes) -> Any:
        return self.read(key, dict).get(field)

    def do_hmget(self, key: bytes, *fields: bytes) -> Any:
        found = self.read(key, dict)
        return [found.get(field) for field in fields]

    def do_hset(self, key: bytes, *pairs: bytes) -> int:
        found = self.key(key, dict)
        before = len(found)
        found.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(found) - before

    def do_hdel(self, key: bytes, *fields: bytes) -> int:
        found = self.read(key, dict)
        count = sum(found.pop(field, None) is not None for field in fields)
        if count and not found:
            self._delete(key)
        return count

    def do_hexists(self, key: bytes, field: bytes) -> int:
        return int(field in self.read(key, dict))

    def do_hlen(self, key: bytes) -> int:
        return len(self.read(key, dict))

    def do_hkeys(self, key: bytes) -> list[bytes]:
        return list(self.read(key, dict))

    def do_hgetall(self, key: bytes) -> list[bytes]:
        return [part for pair in self.read(key, dict).items() for part in pair]

    def do_hincrby(self, key: bytes, field: bytes, by: bytes) -> int:
        found = self.key(key, dict)
        found[field] = b"%d" % (int(found.get(field, 0)) + int(by))
        return int(found[field])

    def do_zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        self.key(key, dict)[member] = float(score)
        return 1

    def do_zrem(self, key: bytes, member: bytes) -> int:
        found = self.read(key, dict)
        removed = found.pop(member, None) is not None
        if removed and not found:
            self._delete(key)
        return int(removed)

    def do_zrangebyscore(self, key: bytes, low: bytes, high: bytes, *options: bytes) -> Any:
        found = sorted((score, member) for member, score in self._between(key, low, high))
        if b"LIMIT" in options:
            assert options[-3:-1] == (b"LIMIT", b"0")
            found = found[: int(options[-1])]
        if b"WITHSCORES" not in options:
            return [member for _, member in found]
        return [part for score, member in found for part in (member, b"%.17g" % score)]

    def _between(self, key: bytes, low: bytes, high: bytes) -> list[tuple[bytes, float]]:
        return [item for item in self.read(key, dict).items() if float(low) <= item[1] <= float(high)]

    def do_zrange(self, key: bytes, *options: bytes) -> list[bytes]:
        assert options == (b"-1", b"-1", b"WITHSCORES")
        found = self.do_zrangebyscore(key, b"-inf", b"+inf", b"WITHSCORES")
        return list(found[-2:])

    def do_zscore(self, key: bytes, member: bytes) -> Any:
        score = self.read(key, dict).get(member)
        return None if score is None else b"%.17g" % score

    def do_zcount(self, key: bytes, low: bytes, high: bytes) -> int:
        return len(self._between(key, low, high))

    def do_zremrangebyscore(self, key: bytes, low: bytes, high: bytes) -> int:
        return sum(self.do_zrem(key, member) for member, _ in self._between(key, low, high))

    def do_persist(self, key: bytes) -> int:
        return int(self.key(key) is not None and self.data.expires.pop(key, None) is not None)

    def do_xadd(self, key: bytes, id: bytes, *fields: bytes) -> bytes:
        stream = self.key(key, SimulatedStream)
        parsed = parse(id)
        if parsed <= stream.last:
            raise redis.exceptions.ResponseError(
                "The ID specified in XADD is equal or smaller than the target stream top item"
            )
        stream.ids.append(parsed)
        stream.fields.append(list(fields))
        stream.last = parsed
        for told in self.appended:
            told(key, parsed, list(fields))
        for look in self.readers:
            asyncio.get_running_loop().call_soon(look)
        return id

    def do_xrange(self, key: bytes, first: bytes, last: bytes, *count: bytes) -> list[Any]:
        stream = self.read(key, SimulatedStream)
        low, high = stream.range(first, last)
        if count:
            high = min(high, low + int(count[1]))
        return [stream.item(i) for i in range(low, high)]

    def do_xrevrange(self, key: bytes, last: bytes, first: bytes, *count: bytes) -> list[Any]:
        stream = self.read(key, SimulatedStream)
        low, high = stream.range(first, last)
        if count:
            low = max(low, high - int(count[1]))
        return [stream.item(i) for i in reversed(range(low, high))]

    def do_xtrim(self, key: bytes, how: bytes, *options: bytes) -> int:
        """Trims exactly to the threshold. The real Redis may keep up to one block of entries more, if "~" says so."""
        threshold = options[-1]
        stream = self.read(key, SimulatedStream)
        if how == b"MINID":
            count = bisect_left(stream.ids, parse(threshold))
        else:
            count = max(0, len(stream.ids) - int(threshold))
        del stream.ids[:count], stream.fields[:count]
        return count

    def do_xread(self, *arguments: bytes) -> Any:
        *words, _, key, id = arguments
        options = dict(zip(words[::2], words[1::2], strict=True))
        items = self.do_xrange(key, b"(" + id, b"+", b"COUNT", options[b"COUNT"])
        return [[key, items]] if items else None

    # -- scripts ------------------------------------------------------------------------------------

    def do_evalsha(self, sha: bytes, count: bytes, *rest: bytes) -> Any:
        script = self._scripts.get(sha)
        if script is None:
            raise redis.exceptions.NoScriptError("NOSCRIPT No matching script.")
        return self._run(script, int(count), rest)

    def do_eval(self, source: bytes, count: bytes, *rest: bytes) -> Any:
        # the real Redis, too, keeps its scripts when its data is gone
        sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        self._scripts[sha] = self._lua.compile(source)
        return self._run(self._scripts[sha], int(count), rest)

    def _run(self, script: Any, count: int, rest: Sequence[bytes]) -> Any:
        self._lua.store = self
        return self._lua.run(script, rest[:count], rest[count:])


class _Lua:
    """Runs Lua scripts as Redis does: see https://redis.io/docs/latest/develop/programmability/lua-api/."""

    def __init__(self) -> None:
        self.store: SimulatedRedis
        self.runtime = lupa.LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self.runtime.globals()[b"redis"] = self.runtime.table_from({b"call": self.call, b"pcall": self.pcall})
        self._compiled: dict[bytes, Any] = {}

    def compile(self, source: bytes) -> Any:
        script = self._compiled.get(source)
        if script is None:
            script = self.runtime.execute(b"return function(KEYS, ARGV) " + source + b"\nend")
            self._compiled[source] = script
        return script

    def run(self, script: Any, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        return self.reply(script(self.runtime.table_from(keys), self.runtime.table_from(arguments)))

    def call(self, *command: Any) -> Any:
        return self.value(self.store.execute([text(part) for part in command]))

    def pcall(self, *command: Any) -> Any:
        try:
            return self.call(*command)
        except redis.exceptions.ResponseError as error:
            return self.runtime.table_from({b"err": str(error).encode()})

    def value(self, reply: Any) -> Any:
        if reply is None:
            return False
        if isinstance(reply, list):
            return self.runtime.table_from([self.value(item) for item in reply])
        return reply

    def reply(self, value: Any) -> Any:
        if value is None or value is False:
            return None
        if lupa.lua_type(value) == "table":
            return [self.reply(value[i]) for i in range(1, len(value) + 1)]
        return int(value) if isinstance(value, (int, float)) else value


@functools.cache
def _lua() -> _Lua:
    return _Lua()


# -- the network between a node and the server ------------------------------------------------------


class SimulatedRedisConnection:
    """A connection to the simulated server. It has those methods of a redis-py connection that the library uses.

    :param owner: the node that opened the connection.
    """

    retry = None

    def __init__(self, store: SimulatedRedis, owner: Any) -> None:
        self.store = store
        self.owner = owner
        self.socket_timeout: float | None = None
        self._open = False
        self._loop: asyncio.AbstractEventLoop
        self._replies: deque[asyncio.Future[Any]] = deque()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._at = self._back = 0.0

    async def connect(self) -> None:
        self._loop = asyncio.get_running_loop()
        await asyncio.sleep(self._delay())
        if not self.store.reachable or self.owner.dead:
            raise redis.exceptions.ConnectionError("refused")
        self._open = True
        self.store.connections[self] = None

    async def disconnect(self, nowait: bool = False) -> None:
        self.end()

    def end(self) -> None:
        self._open = False
        self.store.connections.pop(self, None)
        for future in self._waiting:
            if not future.done():
                future.set_exception(redis.exceptions.ConnectionError("cut"))
                future.exception()  # marks it as seen: perhaps no task waits for it any more

    def _delay(self) -> float:
        lag: float = self.owner.lag
        return self.store.random.choice((0.0, 0.0002, 0.001, 0.005)) + lag

    def pack_commands(self, commands: Sequence[Sequence[Any]]) -> Any:
        return commands

    async def send_command(self, *command: Any, check_health: bool = True) -> None:
        await self.send_packed_command([command])

    async def send_packed_command(self, commands: Any, check_health: bool = True) -> None:
        if not self._open:
            raise redis.exceptions.ConnectionError("not connected")
        for command in commands if isinstance(commands, list) else parsed(commands):
            future: asyncio.Future[Any] = self._loop.create_future()
            self._waiting.append(future)
            self._replies.append(future)
            # strictly later than the command before: the loop may reorder timers of the same time
            self._at = max(self._at + 1e-6, self._loop.time() + self._delay())
            self._loop.call_at(self._at, self._arrive, [text(part) for part in command], future)

    def _arrive(self, command: Sequence[bytes], future: asyncio.Future[Any]) -> None:
        if self.owner.dead and self.store.random.random() < 0.5:
            return
        if not self._open and self.store.random.random() < 0.5:
            return  # the connection broke before the command arrived; otherwise it broke afterwards
        if command[0] == b"XREAD" and b"BLOCK" in command and self._open:
            self._read(command, future, int(command[4]) / 1000)
            return
        try:
            reply = self.store.execute(command)
        except redis.exceptions.ResponseError as error:
            reply = error
        except lupa.LuaError as error:
            reply = redis.exceptions.ResponseError(str(error))
        self._answer(reply, future)

    def _read(self, command: Sequence[bytes], future: asyncio.Future[Any], block: float) -> None:
        """Executes ``XREAD BLOCK``: waits for an entry if there is none."""
        if (reply := self.store.execute(command)) is not None:
            self._answer(reply, future)
            return

        def look() -> None:
            if look in self.store.readers and self._open and (reply := self.store.execute(command)) is not None:
                done(reply)

        def done(reply: Any) -> None:
            timer.cancel()
            self.store.readers.pop(look, None)
            self._answer(reply, future)

        timer = self._loop.call_later(block, done, None)
        self.store.readers[look] = None

    def _answer(self, reply: Any, future: asyncio.Future[Any]) -> None:
        self._back = max(self._back + 1e-6, self._loop.time() + self._delay())
        self._loop.call_at(self._back, self._set, reply, future)

    def _set(self, reply: Any, future: asyncio.Future[Any]) -> None:
        if not self._open or self.owner.dead:
            return
        assert self._waiting.popleft() is future, "answers keep their order"
        if not future.done():
            future.set_result(reply)

    async def read_response(self, disable_decoding: bool = False) -> Any:
        reply = await self._replies.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply


def parsed(commands: bytes) -> Iterator[list[bytes]]:
    """Splits bytes of the Redis protocol into commands."""
    reader = hiredis.Reader()
    reader.feed(commands)
    while command := reader.gets():
        yield command


class SimulatedRedisClient:
    """A client of the simulated server, with the interface of an asyncio client of redis-py, for managers and tests.

    :param owner: the node that opens the connections.
    """

    def __init__(self, store: SimulatedRedis, owner: Any) -> None:
        self.connection_pool = self
        self.store = store
        self.owner = owner

    def make_connection(self) -> SimulatedRedisConnection:
        return SimulatedRedisConnection(self.store, self.owner)

    async def disconnect(self) -> None:
        """Does nothing; a connection pool of redis-py has this method."""

    async def aclose(self) -> None:
        """Does nothing; there is nothing to close."""

    async def hgetall(self, key: str) -> dict[bytes, bytes]:
        return dict(self.store.read(text(key), dict))

    async def hset(self, key: str, field: str, value: object) -> int:
        return self.store.do_hset(text(key), text(field), text(value))

    async def set(self, key: str, value: str) -> None:
        self.store.data.keys[text(key)] = text(value)

    async def rpush(self, key: str, value: str) -> None:
        self.store.data.keys[text(key)] = [text(value)]

    async def delete(self, *keys: str) -> int:
        return self.store.do_del(*map(text, keys))

    async def pttl(self, key: str) -> int:
        return self.store.do_pttl(text(key))

    async def xadd(self, key: str, fields: dict[Any, Any], id: str = "*") -> bytes:
        ms, n = self.store.key(text(key), SimulatedStream).last
        parts = [text(part) for pair in fields.items() for part in pair]
        return self.store.do_xadd(text(key), b"%d-%d" % (ms, n + 1) if id == "*" else text(id), *parts)

    async def xtrim(self, key: str, maxlen: int, approximate: bool = True) -> int:
        return self.store.do_xtrim(text(key), b"MAXLEN", b"~", b"%d" % maxlen)

    async def xdel(self, key: str, *ids: bytes) -> int:
        stream = self.store.read(text(key), SimulatedStream)
        gone = {parse(id) for id in ids}
        kept = [i for i, id in enumerate(stream.ids) if id not in gone]
        count = len(stream.ids) - len(kept)
        stream.ids, stream.fields = [stream.ids[i] for i in kept], [stream.fields[i] for i in kept]
        return count

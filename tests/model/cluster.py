"""Nodes and clients in one process: the library, python-socketio and python-engineio as they are; time, the network
and Redis are ours.

A node is a real ``AsyncServer`` with a real manager. What it says to the world goes through a :class:`Link`
(to a client) or a :class:`tests.model.store.Connection` (to Redis), which delay, lose and end. A node that crashes is
cut off from both at once, and then its tasks are cancelled: nothing that they still do reaches anybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any

import engineio.async_socket
import socketio
from socketio_recovery import AsyncRedisStreamsManager, orphans
from socketio_recovery.errors import PublishTimeout, RedisUnavailable

from . import store as redis
from .loop import Loop
from .store import Store

LOGGER = logging.getLogger("tests.model")
LOGGER.disabled = True

#: In seconds. A session lives for DISCONNECTION after its client is gone, and for TTL without its node.
DISCONNECTION = 3.0
PINGS = {"ping_interval": 0.5, "ping_timeout": 0.5}
HEARTBEAT = 0.5
TTL = DISCONNECTION + 3 * PINGS["ping_interval"] + 3 * HEARTBEAT
#: How long anything may take.
END = 4 * TTL

_node: ContextVar[Node | None] = ContextVar("node", default=None)


def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """Notes whose task it is, so that a node can crash."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    node = _node.get()
    if node is not None:
        node.tasks[task] = None
        task.add_done_callback(lambda task: node.tasks.pop(task, None))
    return task


class Link:
    """A WebSocket between a client and a node.

    The client's end is told by calls; the node's end is what python-engineio is given.
    """

    #: Packets that the network takes from a node whose client does not read.
    BUFFER = 4

    def __init__(self, loop: Loop, random: Random, listener: Client) -> None:
        self._loop = loop
        self._random = random
        self._listener: Client | None = listener
        self._incoming: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._down = self._up = 0.0
        self._stuck: list[str | bytes | None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self.broken = False

    def _later(self, at: float, run: Callable[[], None]) -> float:
        when = max(at + 1e-6, self._loop.time() + self._random.choice((0.0, 0.001, 0.004, 0.02)))
        self._loop.call_at(when, run)
        return when

    # -- the node's end -----------------------------------------------------------------------------

    async def send(self, data: str | bytes) -> None:
        await self._room.wait()
        if self.broken:
            raise ConnectionResetError
        self._take(data)

    def _take(self, data: str | bytes) -> None:
        self._down = self._later(self._down, lambda: self._arrive(data))

    def _arrive(self, data: str | bytes | None) -> None:
        if self._stuck is not None:
            self._stuck.append(data)
            if len(self._stuck) >= self.BUFFER:
                self._room.clear()
        elif self._listener is not None and not self.broken:
            self._listener.read(self, data)

    async def wait(self) -> str | bytes:
        data = await self._incoming.get()
        if data is None:
            self._incoming.put_nowait(None)
            raise OSError
        return data

    async def close(self) -> None:
        """What was sent still arrives."""
        self._down = self._later(self._down, lambda: self._arrive(None))
        self._incoming.put_nowait(None)

    def abort(self) -> None:
        """The connection ends at once; what is on its way is lost."""
        if not self.broken:
            self.broken = True
            self._room.set()
            self._incoming.put_nowait(None)
            if self._listener is not None:
                self._later(0, self._tell)

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener.lost(self)

    # -- the client's end ---------------------------------------------------------------------------

    def write(self, data: str | bytes) -> None:
        self._up = self._later(self._up, lambda: None if self.broken else self._incoming.put_nowait(data))

    def leave(self, silently: bool) -> None:
        """The client is gone. ``silently``: the node is not told."""
        self._listener = None
        if not silently:
            self._up = self._later(self._up, self.abort)

    def stop_reading(self) -> None:
        if self._stuck is None:
            self._stuck = []

    def read_on(self) -> None:
        held, self._stuck = self._stuck, None
        self._room.set()
        for data in held or ():
            self._arrive(data)


class Wire:
    """The TCP transport of a :class:`Link`, which takes WebSocket frames: what an outbox writes to."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.abort = link.abort

    def is_closing(self) -> bool:
        return self._link.broken

    def get_write_buffer_size(self) -> int:
        return 0 if self._link._room.is_set() else 1 << 30

    def write(self, frames: bytes) -> None:
        while frames:
            size, at = frames[1], 2
            if size > 125:
                at = 4 if size == 126 else 10
                size = int.from_bytes(frames[2:at], "big")
            body = frames[at : at + size]
            self._link._take(body.decode() if frames[0] == 0x81 else body)
            frames = frames[at + size :]


class Run:
    """That a handler ran."""

    def __init__(self, what: str, sid: str, node: Node, transport: str, reason: str | None) -> None:
        self.what = what
        self.sid = sid
        self.node = node
        self.transport = transport
        self.reason = reason
        self.at = node.loop.time()

    def __repr__(self) -> str:
        return f"{self.what} {self.sid} on {self.node.name} by {self.transport or '-'}: {self.reason}"


class Node:
    """A process of the cluster.

    :param runs: where it notes that its handlers ran, and of which sessions.
    """

    def __init__(self, name: str, loop: Loop, store: Store, runs: list[Run], options: dict[str, Any]) -> None:
        self.name = name
        self.loop = loop
        self.store = store
        self.runs = runs
        self.dead = False
        self.died_at = float("inf")
        self.lag = 0.0
        self.links: list[Link] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.slow_handlers = 0.0
        self.faults: list[str] = []  # what handlers found wrong
        with self:
            self.manager = AsyncRedisStreamsManager(
                redis.Client(store, self),
                channel="m",
                logger=LOGGER,
                max_disconnection_duration=DISCONNECTION,
                heartbeat_interval=HEARTBEAT,
                **options,
            )
            self.sio = socketio.AsyncServer(
                async_mode="asgi", client_manager=self.manager, logger=LOGGER, engineio_logger=LOGGER, **PINGS
            )
        self.sio.eio._async = {
            "asyncio": True,
            "translate_request": lambda environ: environ,
            "make_response": lambda *arguments: None,
            "websocket": _WebSocket,
        }
        ids = count(1)
        self.sio.eio.generate_id = lambda: f"{name}{next(ids)}"  # the same from run to run
        self.sio.on("connect", self._connected)
        self.sio.on("disconnect", self._disconnected)
        self.task(self._start())

    def __enter__(self) -> Node:
        self._token = _node.set(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        _node.reset(self._token)

    def task(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Runs something in this node."""
        with self:
            return asyncio.ensure_future(work, loop=self.loop)

    async def _start(self) -> None:
        with suppress(RedisUnavailable):  # Redis is away just now; it goes on trying
            await self.manager.start()

    async def _connected(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        if self.dead:
            return
        recovered = self.manager.recovered(sid)
        transport = self.manager.eio_sid_from_sid(sid, "/") or ""
        reason = "recovered" if recovered else self.manager.recovery_reason(sid)
        self.runs.append(Run("connect", sid, self, transport, reason))
        environ["model.client"].greeted(sid, reason, self.store)
        await asyncio.sleep(self.slow_handlers)

    async def _disconnected(self, sid: str, reason: str) -> None:
        if self.dead:
            return
        try:
            data = await self.sio.get_session(sid)
        except KeyError:
            self.faults.append(f"the disconnect handler of {sid} can't read its session")
            raise
        transport = "" if reason == orphans.NODE_LOST else self.manager.eio_sid_from_sid(sid, "/") or ""
        self.runs.append(Run("disconnect", sid, self, transport, reason))
        await asyncio.sleep(self.slow_handlers)
        if data != await self.sio.get_session(sid) or sid not in self.sio.rooms(sid):
            self.faults.append(f"the session of {sid} changed under its handler")

    def accept(self, link: Link, by: Client) -> None:
        environ = {
            "REQUEST_METHOD": "GET",
            "QUERY_STRING": "EIO=4&transport=websocket",
            "HTTP_UPGRADE": "websocket",
            "HTTP_CONNECTION": "upgrade",
            "HTTP_USER_AGENT": "model",
            "aiohttp.request": SimpleNamespace(transport=Wire(link)),
            "model.link": link,
            "model.client": by,
        }
        self.links.append(link)
        self.task(self.sio.eio.handle_request(environ))

    def crash(self) -> None:
        """SIGKILL."""
        self.dead = True
        self.died_at = self.loop.time()
        self.store.cut(self)
        for link in self.links:
            link.abort()
        for task in list(self.tasks):
            task.cancel()


class _WebSocket:
    """What python-engineio asks of a WebSocket."""

    def __init__(self, handler: Callable[[Any], Awaitable[None]], server: Any) -> None:
        self.handler = handler
        self._sock = SimpleNamespace(compress=0)

    async def __call__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.link: Link = environ["model.link"]
        self.send, self.wait, self.close = self.link.send, self.link.wait, self.link.close
        await self.handler(self)


class Session:
    """A session as its client knows it."""

    def __init__(self, sid: str, birth: tuple[int, int]) -> None:
        self.sid = sid
        self.birth = birth
        self.got: list[int] = []  # the numbers that events carry
        self.connections = 1
        self.ended = False  # on purpose


class Client:
    """As the official JavaScript client, as far as recovery goes.

    https://github.com/socketio/socket.io/blob/main/packages/socket.io-client/lib/socket.ts: ``onpacket``,
    ``onconnect``, ``emitEvent``.
    """

    _packet = re.compile(r"4([0-6])(?:(\d+)-)?(?:/[^,]*,)?(\d+)?(.*)", re.DOTALL)

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.name = name
        self.cluster = cluster
        self.link: Link | None = None
        self.active = False  # whether it wants to be connected
        self.connected = False
        self.pid: str | None = None
        self.offset: str | None = None
        self.sessions: list[Session] = []
        self.refusals: list[tuple[str, float]] = []  # (why it was not recovered, for how long it was away)
        self.left_at = 0.0
        self.goal: Node | None = None
        self.node: Node | None = None
        self._binary: list[Any] = []
        self._births: dict[str, tuple[int, int]] = {}
        self._reasons: dict[str, str] = {}

    @property
    def session(self) -> Session | None:
        return self.sessions[-1] if self.sessions else None

    def greeted(self, sid: str, reason: str | None, store: Store) -> None:
        """Its connect handler runs, on a node."""
        record = store.key(b"{m}:session:" + sid.encode())
        if record is not None and b"birth" in record:
            self._births[sid] = (int(record[b"epoch"]), int(record[b"birth"]))
        self._reasons[sid] = reason or ""

    # -- the network --------------------------------------------------------------------------------

    def connect(self, node: Node | None = None) -> None:
        self.active = True
        node = node or self.goal
        if node is None or node.dead:
            node = self.cluster.random.choice([n for n in self.cluster.nodes if not n.dead] or self.cluster.nodes)
        self.goal = None
        self.connected = False
        self._binary = []
        self.link = Link(self.cluster.loop, self.cluster.random, self)
        if node.dead:
            self.link.abort()
        else:
            self.node = node
            node.accept(self.link, self)

    def drop(self, silently: bool, to: Node | None, after: float) -> None:
        """Its connection is lost; it comes back, to another."""
        if self.link is None:
            return
        link, self.link = self.link, None
        link.leave(silently)
        self._away()
        self.goal = to
        self.cluster.loop.call_later(after, self._back)

    def lost(self, link: Link) -> None:
        if link is self.link:
            self.link = None
            self._away()
            self.cluster.loop.call_later(0.05 + 0.1 * self.cluster.random.random(), self._back)

    def _away(self) -> None:
        if self.connected:
            self.connected = False
            self.left_at = self.cluster.loop.time()

    def _back(self) -> None:
        if self.active and self.link is None:
            self.connect()

    def disconnect(self) -> None:
        """On purpose: the pid is of no use any more."""
        self.active = False
        if self.link is not None:
            if self.connected and self.session is not None:
                self.session.ended = True
                self.link.write("41")
            link, self.link = self.link, None
            link.leave(False)
            self._away()

    def vanish(self) -> None:
        """It is never heard of again."""
        self.active = False
        if self.link is not None:
            link, self.link = self.link, None
            link.leave(False)

    # -- packets ------------------------------------------------------------------------------------

    def read(self, link: Link, data: str | bytes | None) -> None:
        if link is not self.link:
            return
        if data is None:
            self.lost(link)
        elif isinstance(data, bytes):
            self._binary[0] -= 1
            if not self._binary[0]:
                self._event(*self._binary[1:])
        elif data[0] == "0":
            assert self.node is not None
            if self.pid is not None:
                sid = self.pid.rpartition(".")[0]
                self.cluster.claims.append((sid, self.node, self.cluster.loop.time()))
            auth = {} if self.pid is None else {"pid": self.pid, **({"offset": self.offset} if self.offset else {})}
            link.write("40" + (json.dumps(auth) if auth else ""))
        elif data[0] == "2":
            link.write("3")
        elif data[0] == "4":
            self._socketio(link, data)

    def _socketio(self, link: Link, data: str) -> None:
        match = self._packet.fullmatch(data)
        assert match, data
        kind, attachments, number, rest = match.groups()
        if kind == "0":
            self._connected(json.loads(rest))
        elif kind == "1":
            if self.session is not None:
                self.session.ended = True
            self.active = False
            self.link = None
            link.leave(False)
            self._away()
        elif kind == "2":
            self._event(json.loads(rest), number)
        elif kind == "5":
            self._binary = [int(attachments), json.loads(rest), number]

    def _connected(self, data: dict[str, Any]) -> None:
        recovered = self.pid is not None and self.pid == data["pid"]
        now = self.cluster.loop.time()
        sid = data["sid"]
        if recovered:
            assert self.session is not None
            assert self.session.sid == sid
            self.session.connections += 1
        else:
            if self.pid is not None and self.session is not None and not self.session.ended:
                self.refusals.append((self._reasons[sid], now - self.left_at))
            self.sessions.append(Session(sid, self._births[sid]))
        assert (self._reasons[sid] == "recovered") == recovered, "both sides say the same"
        self.pid = data["pid"]
        self.connected = True

    def _event(self, arguments: list[Any], number: str | None) -> None:
        assert self.session is not None
        self.session.got.append(arguments[1])
        if number is not None:
            assert self.link is not None
            self.link.write(f"43{number}[{arguments[1]}]")
        elif self.pid and isinstance(arguments[-1], str):
            self.offset = arguments[-1]


class Cluster:
    """Everything, and the faults.

    :param seed: decides what takes how long.
    :param options: of each manager.
    """

    def __init__(self, seed: int, nodes: int = 3, **options: Any) -> None:
        self.random = Random(seed)
        self.loop = Loop()
        self.loop.set_task_factory(make_task)
        asyncio.set_event_loop(self.loop)
        # python-engineio asks the machine for the time
        engineio.async_socket.time = SimpleNamespace(time=self.loop.time)
        self.store = Store(self.loop.time, self.random)
        self.options = options
        self.runs: list[Run] = []
        self.crashed: list[Node] = []
        self.clients: list[Client] = []
        #: Each try to recover: which session, where, when.
        self.claims: list[tuple[str, Node, float]] = []
        self.nodes = [self._node(name) for name in "abcdef"[:nodes]]
        #: What each emit said: the number it carries -> "ok", or its exception.
        self.emitted: dict[int, Any] = {}
        self.answers: dict[int, list[Any]] = {}
        self.run(0.1)

    def _node(self, name: str) -> Node:
        return Node(name, self.loop, self.store, self.runs, {"publish_timeout": 3.0, **self.options})

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def healthy(self) -> bool:
        async def ask() -> bool:
            return all(node.manager.healthy for node in self.nodes)

        return self.loop.run_until_complete(ask())

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        end = self.loop.time() + seconds
        while not condition():
            assert self.loop.time() < end, what
            self.run(0.05)

    def close(self) -> None:
        for node in self.nodes:
            node.crash()
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.run(0.1)
        self.loop.close()
        asyncio.set_event_loop(None)
        for failure in self.loop.failures:
            if isinstance(failure.get("exception"), Exception):
                raise AssertionError(failure["message"]) from failure["exception"]

    # -- what programs do ---------------------------------------------------------------------------

    def open(self, node: Node) -> Client:
        client = Client(f"client {len(self.clients)}", self)
        self.clients.append(client)
        client.connect(node)
        return client

    def crash(self, node: Node) -> None:
        node.crash()
        self.crashed.append(node)

    def restart(self, node: Node) -> None:
        if not node.dead:
            self.crash(node)
        self.nodes[self.nodes.index(node)] = self._node(node.name + "'")

    def emit(
        self, node: Node, to: Any = None, skip_sid: Any = None, *, binary: bool = False, volatile: bool = False
    ) -> None:
        """Emits, without waiting for it."""
        number = len(self.emitted)
        self.emitted[number] = None
        data: tuple[Any, ...] = (number, b"\x00" * (number % 3)) if binary else (number,)

        async def emit() -> None:
            try:
                await node.manager.emit("e", data, to=to, skip_sid=skip_sid, volatile=volatile)
                self.emitted[number] = "ok"
            except PublishTimeout as error:
                self.emitted[number] = error.fate

        node.task(emit())

    def call(self, node: Node, to: str) -> None:
        """An event that wants an acknowledgement."""
        number = len(self.emitted)
        self.emitted[number] = None
        self.answers[number] = []

        async def emit() -> None:
            try:
                await node.manager.emit("e", (number,), to=to, callback=self.answers[number].append)
                self.emitted[number] = "ok"
            except PublishTimeout as error:
                self.emitted[number] = error.fate

        node.task(emit())

    def do(self, node: Node, work: Callable[[], Awaitable[Any]]) -> None:
        """Something that may fail for lack of Redis."""

        async def run() -> None:
            try:
                await work()
            except (PublishTimeout, ConnectionError, KeyError):
                pass

        node.task(run())

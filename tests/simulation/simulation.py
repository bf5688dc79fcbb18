"""A deterministic simulation of a cluster in one process.

The library, python-socketio and python-engineio are the real ones. Time, the network, the clients and Redis are
simulated, so that a program runs in the same way each time.

A node is a real ``AsyncServer`` with a real manager. It talks to a client through a :class:`SimulatedWebSocket`, and
to Redis through a :class:`tests.simulation.redis.SimulatedRedisConnection`. Both can delay data, lose data and break.
When a node crashes, the simulation first cuts all its connections and then cancels its tasks. So nothing that these
tasks still do can reach a client or Redis.
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
from socketio_recovery import AsyncRedisStreamsManager, reasons
from socketio_recovery.aio.shard import Shard
from socketio_recovery.connections import Hold
from socketio_recovery.errors import PublishTimeout, RedisUnavailable
from socketio_recovery.read_size import ReadSize
from socketio_recovery.settings import IDLE

from tests.support.simulated_loop import SimulatedLoop

from .redis import SimulatedRedis, SimulatedRedisClient

LOGGER = logging.getLogger("tests.simulation")
LOGGER.disabled = True

#: In seconds. A session waits for DISCONNECTION after its client has gone, and for TTL after its node has died.
DISCONNECTION = 3.0
PINGS = {"ping_interval": 0.5, "ping_timeout": 0.5}
HEARTBEAT = 0.5
TTL = DISCONNECTION + 3 * PINGS["ping_interval"] + (2 + IDLE) * HEARTBEAT
#: What the keys of session records begin with.
SESSION = b"{m}:session:"
#: The longest time that anything may take, in seconds.
END = 4 * TTL

_node: ContextVar[SimulatedNode | None] = ContextVar("node", default=None)


def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """Creates a task, and notes which node it belongs to, so that a crash of the node can cancel it."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    node = _node.get()
    if node is not None:
        node.tasks[task] = None
        task.add_done_callback(lambda task: node.tasks.pop(task, None))
    return task


class SimulatedWebSocket:
    """The WebSocket between a client and a node.

    It calls methods of the client when something arrives there. At the node, python-engineio uses it as its WebSocket.
    """

    #: How many packets the network accepts from a node while the client does not read.
    BUFFER = 4

    def __init__(self, loop: SimulatedLoop, random: Random, listener: SimulatedClient) -> None:
        self._loop = loop
        self._random = random
        self._listener: SimulatedClient | None = listener
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
        """Closes the WebSocket in order: what the node has sent before still arrives."""
        self._down = self._later(self._down, lambda: self._arrive(None))
        self._incoming.put_nowait(None)

    def abort(self) -> None:
        """Breaks the connection at once: data on its way is lost."""
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
        """Ends the client's side.

        :param silently: the node does not notice it, as when a network cable is pulled.
        """
        self._listener = None
        if not silently:
            self._up = self._later(self._up, self.abort)

    def stop_reading(self) -> None:
        if self._stuck is None:
            self._stuck = []

    def congest(self) -> None:
        """The client reads nothing from now on, and the network takes nothing more."""
        self.stop_reading()
        self._room.clear()

    def read_on(self) -> None:
        held, self._stuck = self._stuck, None
        self._room.set()
        for data in held or ():
            self._arrive(data)


class SimulatedTransport:
    """The TCP transport below a :class:`SimulatedWebSocket`. A send queue writes WebSocket frames to it."""

    def __init__(self, websocket: SimulatedWebSocket) -> None:
        self._websocket = websocket
        self.abort = websocket.abort

    def is_closing(self) -> bool:
        return self._websocket.broken

    def get_write_buffer_size(self) -> int:
        return 0 if self._websocket._room.is_set() else 1 << 30

    def write(self, frames: bytes) -> None:
        while frames:
            size, at = frames[1], 2
            if size > 125:
                at = 4 if size == 126 else 10
                size = int.from_bytes(frames[2:at], "big")
            body = frames[at : at + size]
            self._websocket._take(body.decode() if frames[0] == 0x81 else body)
            frames = frames[at + size :]


class HandlerRun:
    """Records one run of a connect or disconnect handler."""

    def __init__(
        self, what: str, sid: str, node: SimulatedNode, transport: str, reason: str | None, token: str = ""
    ) -> None:
        self.what = what
        self.sid = sid
        self.node = node
        self.transport = transport
        self.reason = reason
        self.token = token  # of the connection, or of the node's adoption

    def __repr__(self) -> str:
        return f"{self.what} {self.sid} on {self.node.name} by {self.transport or '-'}: {self.reason}"


class SimulatedNode:
    """A node of the simulated cluster: a real server with a real manager.

    :param runs: the node adds an item here each time one of its handlers runs.
    """

    def __init__(
        self, name: str, loop: SimulatedLoop, store: SimulatedRedis, runs: list[HandlerRun], options: dict[str, Any]
    ) -> None:
        self.name = name
        self.loop = loop
        self.store = store
        self.runs = runs
        self.dead = False
        self.died_at = float("inf")
        self.owed: set[str] = set()  # sessions for which it died with something undone, see ``_owes``
        self.lag = 0.0
        self.websockets: list[SimulatedWebSocket] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.slow_handlers = 0.0
        self.faults: list[str] = []  # problems that the node's own handlers noticed
        with self:
            self.manager = AsyncRedisStreamsManager(
                SimulatedRedisClient(store, self),
                channel="m",
                logger=LOGGER,
                max_disconnection_duration=DISCONNECTION,
                heartbeat_interval=HEARTBEAT,
                inbox=False,  # nobody writes to it here; tests/store has its own programs
                **options,
            )
            self.sio = socketio.AsyncServer(
                async_mode="asgi", client_manager=self.manager, logger=LOGGER, engineio_logger=LOGGER, **PINGS
            )
        self.sio.eio._async = {
            "asyncio": True,
            "translate_request": lambda environ: environ,
            "make_response": lambda *arguments: None,
            "websocket": _EngineIOWebSocket,
        }
        ids = count(1)
        self.sio.eio.generate_id = lambda: f"{name}{next(ids)}"  # the same ids in each run
        self.sio.on("connect", self._connected)
        self.sio.on("disconnect", self._disconnected)
        self.parts.look_back.size = ReadSize(5, 2000)  # slices are small, as programs are
        # Three heartbeats in each lease, as by default: more would only take time.
        heartbeat = self.parts.node_heartbeat
        heartbeat.durations = heartbeat.durations._replace(node_heartbeat=heartbeat.durations.node_lease // 3)
        self.task(self._start())

    @property
    def parts(self) -> Shard:
        """The library's parts of this node, for tests that make one of them slow or failing."""
        assert self.manager.node is not None
        return self.manager.node.first

    def __enter__(self) -> SimulatedNode:
        self._token = _node.set(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        _node.reset(self._token)

    def task(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Runs a coroutine as a task of this node."""
        with self:
            return asyncio.ensure_future(work, loop=self.loop)

    async def _start(self) -> None:
        with suppress(RedisUnavailable):  # Redis is away now; the manager goes on trying
            await self.manager.start()

    async def _connected(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        if self.dead:
            return
        recovered = self.manager.recovered(sid)
        transport = self.manager.eio_sid_from_sid(sid, "/") or ""
        reason = "recovered" if recovered else self.manager.recovery_reason(sid)
        self.runs.append(HandlerRun("connect", sid, self, transport, reason))
        environ["simulation.client"].greeted(sid, reason, self.store)
        await asyncio.sleep(self.slow_handlers)

    async def _disconnected(self, sid: str, reason: str) -> None:
        if self.dead:
            return
        try:
            data = await self.sio.get_session(sid)
        except KeyError:
            self.faults.append(f"the disconnect handler of {sid} can't read its session")
            raise
        transport = "" if reason == reasons.NODE_LOST else self.manager.eio_sid_from_sid(sid, "/") or ""
        connection = self.manager._find(sid, "/")
        token = connection.token if connection is not None else ""
        self.runs.append(HandlerRun("disconnect", sid, self, transport, reason, token))
        await asyncio.sleep(self.slow_handlers)
        if data != await self.sio.get_session(sid) or sid not in self.sio.rooms(sid):
            self.faults.append(f"the session of {sid} changed under its handler")

    def accept(self, websocket: SimulatedWebSocket, by: SimulatedClient) -> None:
        environ = {
            "REQUEST_METHOD": "GET",
            "QUERY_STRING": "EIO=4&transport=websocket",
            "HTTP_UPGRADE": "websocket",
            "HTTP_CONNECTION": "upgrade",
            "HTTP_USER_AGENT": "Mozilla/5.0 (simulation)",
            "aiohttp.request": SimpleNamespace(transport=SimulatedTransport(websocket)),
            "simulation.websocket": websocket,
            "simulation.client": by,
        }
        self.websockets.append(websocket)
        self.task(self.sio.eio.handle_request(environ))

    def _owes(self) -> set[str]:
        """Sessions whose disconnect handler runs once more if the node dies now: to Redis, it has not run here.

        The node owns them in Redis; or it ran their handler, and Redis does not know it yet; or it has just asked to
        become their owner.
        """
        owed = {connection.sid for connection in self.parts.connections if connection.hold is Hold.CLAIMED}
        owed |= self.parts.orphans._here
        for key, record in self.store.data.keys.items():
            if key.startswith(SESSION) and b"open" in record:
                sid = key.removeprefix(SESSION).decode()
                open = record[b"open"].decode().split()
                if self.manager.host_id.encode() in record.get(b"holder", b"") or any(
                    run.sid == sid and run.node is self and run.token in open for run in self.runs
                ):
                    owed.add(sid)
        return owed

    def crash(self) -> None:
        """Ends the node at once, as SIGKILL does."""
        self.owed = self._owes()
        self.dead = True
        self.died_at = self.loop.time()
        self.store.cut(self)
        for websocket in self.websockets:
            websocket.abort()
        for task in list(self.tasks):
            task.cancel()


class _EngineIOWebSocket:
    """Connects python-engineio, which expects this interface, with a :class:`SimulatedWebSocket`."""

    def __init__(self, handler: Callable[[Any], Awaitable[None]], server: Any) -> None:
        self.handler = handler
        self._sock = SimpleNamespace(compress=0)

    async def __call__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.websocket: SimulatedWebSocket = environ["simulation.websocket"]
        self.send, self.wait, self.close = self.websocket.send, self.websocket.wait, self.websocket.close
        await self.handler(self)


class SimulatedSession:
    """What a client knows about one of its sessions."""

    def __init__(self, sid: str, birth: tuple[int, int]) -> None:
        self.sid = sid
        self.birth = birth
        self.got: list[int] = []  # the numbers of the events that it received
        self.connections = 1
        self.ended = False  # by a deliberate disconnect, of the client or of the server


class SimulatedClient:
    """A client that does about recovery what the official JavaScript client does.

    See https://github.com/socketio/socket.io/blob/main/packages/socket.io-client/lib/socket.ts: ``onpacket``,
    ``onconnect``, ``emitEvent``.
    """

    _packet = re.compile(r"4([0-6])(?:(\d+)-)?(?:/[^,]*,)?(\d+)?(.*)", re.DOTALL)

    def __init__(self, name: str, cluster: Simulation) -> None:
        self.name = name
        self.cluster = cluster
        self.websocket: SimulatedWebSocket | None = None
        self.active = False  # whether it wants to be connected
        self.connected = False
        self.pid: str | None = None
        self.offset: str | None = None
        self.sessions: list[SimulatedSession] = []
        self.refusals: list[tuple[str, float]] = []  # (reason for the new session, seconds it was away)
        self.left_at = 0.0
        self.goal: SimulatedNode | None = None
        self.node: SimulatedNode | None = None
        self._binary: list[Any] = []
        self._births: dict[str, tuple[int, int]] = {}
        self._reasons: dict[str, str] = {}

    @property
    def session(self) -> SimulatedSession | None:
        return self.sessions[-1] if self.sessions else None

    def greeted(self, sid: str, reason: str | None, store: SimulatedRedis) -> None:
        """A node's connect handler calls this when it runs for this client."""
        record = store.key(SESSION + sid.encode())
        if record is not None and b"birth" in record:
            self._births[sid] = (int(record[b"epoch"]), int(record[b"birth"]))
        self._reasons[sid] = reason or ""

    # -- the network --------------------------------------------------------------------------------

    def connect(self, node: SimulatedNode | None = None) -> None:
        self.active = True
        node = node or self.goal
        if node is None or node.dead:
            node = self.cluster.random.choice([n for n in self.cluster.nodes if not n.dead] or self.cluster.nodes)
        self.goal = None
        self.connected = False
        self._binary = []
        self.websocket = SimulatedWebSocket(self.cluster.loop, self.cluster.random, self)
        if node.dead:
            self.websocket.abort()
        else:
            self.node = node
            node.accept(self.websocket, self)

    def drop(self, silently: bool, to: SimulatedNode | None, after: float) -> None:
        """Loses the connection; the client connects to another node ``after`` some seconds."""
        if self.websocket is None:
            return
        websocket, self.websocket = self.websocket, None
        websocket.leave(silently)
        self._away()
        self.goal = to
        self.cluster.loop.call_later(after, self._back)

    def lost(self, websocket: SimulatedWebSocket) -> None:
        if websocket is self.websocket:
            self.websocket = None
            self._away()
            self.cluster.loop.call_later(0.05 + 0.1 * self.cluster.random.random(), self._back)

    def _away(self) -> None:
        if self.connected:
            self.connected = False
            self.left_at = self.cluster.loop.time()

    def _back(self) -> None:
        if self.active and self.websocket is None:
            self.connect()

    def disconnect(self) -> None:
        """Leaves deliberately. The server forgets the session, so its pid is useless from now on."""
        self.active = False
        if self.websocket is not None:
            if self.connected and self.session is not None:
                self.session.ended = True
                self.websocket.write("41")
            websocket, self.websocket = self.websocket, None
            websocket.leave(False)
            self._away()

    def vanish(self) -> None:
        """Loses the connection, and never comes back."""
        self.active = False
        if self.websocket is not None:
            websocket, self.websocket = self.websocket, None
            websocket.leave(False)

    # -- packets ------------------------------------------------------------------------------------

    def read(self, websocket: SimulatedWebSocket, data: str | bytes | None) -> None:
        if websocket is not self.websocket:
            return
        if data is None:
            self.lost(websocket)
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
            websocket.write("40" + (json.dumps(auth) if auth else ""))
        elif data[0] == "2":
            websocket.write("3")
        elif data[0] == "4":
            self._socketio(websocket, data)

    def _socketio(self, websocket: SimulatedWebSocket, data: str) -> None:
        match = self._packet.fullmatch(data)
        assert match, data
        kind, attachments, number, rest = match.groups()
        if kind == "0":
            self._connected(json.loads(rest))
        elif kind == "1":
            if self.session is not None:
                self.session.ended = True
            self.active = False
            self.websocket = None
            websocket.leave(False)
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
            self.sessions.append(SimulatedSession(sid, self._births[sid]))
        assert (self._reasons[sid] == "recovered") == recovered, "both sides say the same"
        self.pid = data["pid"]
        self.connected = True

    def _event(self, arguments: list[Any], number: str | None) -> None:
        assert self.session is not None
        self.session.got.append(arguments[1])
        if number is not None:
            assert self.websocket is not None
            self.websocket.write(f"43{number}[{arguments[1]}]")
        elif self.pid and isinstance(arguments[-1], str):
            self.offset = arguments[-1]


class Simulation:
    """A simulated cluster: nodes, clients, Redis, and the faults that a program can cause.

    :param seed: decides how long each transmission takes.
    :param options: options of each node's manager.
    """

    def __init__(self, seed: int, nodes: int = 3, **options: Any) -> None:
        self.random = Random(seed)
        self.loop = SimulatedLoop()
        self.loop.set_task_factory(make_task)
        asyncio.set_event_loop(self.loop)
        # python-engineio reads the machine's clock; it gets the simulated one instead
        engineio.async_socket.time = SimpleNamespace(time=self.loop.time)
        self.store = SimulatedRedis(self.loop.time, self.random)
        self.options = options
        self.runs: list[HandlerRun] = []
        self.crashed: list[SimulatedNode] = []
        self.clients: list[SimulatedClient] = []
        #: Each attempt to recover: the session, the node, the time.
        self.claims: list[tuple[str, SimulatedNode, float]] = []
        self.when_made: Callable[[SimulatedNode], None] = lambda node: None
        self.nodes = [self._node(name) for name in "abcdef"[:nodes]]
        #: The result of each emit: the number that the event carries -> "ok", or the fate that the exception names.
        self.emitted: dict[int, Any] = {}
        self.answers: dict[int, list[Any]] = {}
        self.run(0.1)

    def _node(self, name: str) -> SimulatedNode:
        node = SimulatedNode(name, self.loop, self.store, self.runs, {"publish_timeout": 3.0, **self.options})
        self.when_made(node)
        return node

    def run(self, seconds: float) -> None:
        """Lets simulated time pass."""
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

    def open(self, node: SimulatedNode) -> SimulatedClient:
        client = SimulatedClient(f"client {len(self.clients)}", self)
        self.clients.append(client)
        client.connect(node)
        return client

    def crash(self, node: SimulatedNode) -> None:
        node.crash()
        self.crashed.append(node)

    def restart(self, node: SimulatedNode) -> None:
        if not node.dead:
            self.crash(node)
        self.nodes[self.nodes.index(node)] = self._node(node.name + "'")

    def emit(
        self,
        node: SimulatedNode,
        to: Any = None,
        skip_sid: Any = None,
        *,
        binary: bool = False,
        volatile: bool = False,
        size: int = 0,
    ) -> None:
        """Starts to emit an event, and does not wait until it is stored.

        :param size: how many bytes it has beside its number.
        """
        number = len(self.emitted)
        self.emitted[number] = None
        data: tuple[Any, ...] = (number, b"\x00" * (number % 3)) if binary else (number,)
        if size:
            data += ("x" * size,)

        async def emit() -> None:
            try:
                await node.manager.emit("e", data, to=to, skip_sid=skip_sid, volatile=volatile)
                self.emitted[number] = "ok"
            except PublishTimeout as error:
                self.emitted[number] = error.fate

        if not node.dead:
            node.task(emit())

    def call(self, node: SimulatedNode, to: str) -> None:
        """Starts to emit an event that asks for an acknowledgement."""
        number = len(self.emitted)
        self.emitted[number] = None
        self.answers[number] = []

        async def emit() -> None:
            try:
                await node.manager.emit("e", (number,), to=to, callback=self.answers[number].append)
                self.emitted[number] = "ok"
            except PublishTimeout as error:
                self.emitted[number] = error.fate

        if not node.dead:
            node.task(emit())

    def do(self, node: SimulatedNode, work: Callable[[], Awaitable[Any]]) -> None:
        """Starts something on a node; it may fail because Redis is away."""

        async def run() -> None:
            try:
                await work()
            except (PublishTimeout, ConnectionError, KeyError):
                pass

        if not node.dead:
            node.task(run())

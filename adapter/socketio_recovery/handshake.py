"""Connecting and leaving.  The only file that touches private parts of python-socketio and python-engineio.

python-socketio asks its client manager for little more than a ``sid`` when a client connects, and does not
tell it why one leaves. Recovery needs the client's ``pid`` and offset, a word in the ``CONNECT`` packet,
and the difference between a client that left and a transport that was lost. So a few methods of the server
*instance* are wrapped here, each around the original, which still does its work. What is wrapped:

==========================  ============================================================================
``_handle_connect``         takes ``pid`` and offset out of ``auth``; looks once more when it is over
``_send_packet``            puts ``pid`` into ``CONNECT``; forgets the session before ``DISCONNECT``; keeps
                            acknowledgements back until a replay is over
``_trigger_event``          leaves the ``connect`` handler out on recovery, if ``skip_connect_handler``, and a
                            ``disconnect`` handler that another node has run already
``_handle_event``           refuses what is no event, or would run the ``connect`` or ``disconnect`` handler
``_handle_disconnect``      remembers which connection a ``sid`` means, since two may have it
``disconnect``              the same
``save_session``            stores the data in the session's record
``get_session``             the same for what it reads: in a ``disconnect`` handler the transport may be gone
``emit``                    knows ``volatile``
Engine.IO ``create_queue``  makes an outbox; see ``outbox.py``
Engine.IO ``message``       bounds what one binary packet may hold
Engine.IO ``connect``       watches the pings of the transport, and keeps hold of its WebSocket
Engine.IO ``disconnect``    marks what follows as a loss, not a leave
==========================  ============================================================================

Closing a transport so that its client comes back must not send an Engine.IO CLOSE or a Socket.IO
DISCONNECT: JavaScript clients do not come back from the latter, and from the former only after seconds.

Protocol: https://socket.io/docs/v4/socket-io-protocol/ ("Connection to a namespace"; ``pid`` and ``offset``
are those of connection state recovery, https://socket.io/docs/v4/connection-state-recovery).
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

from engineio.packet import PING
from socketio.packet import ACK, BINARY_ACK, CONNECT, DISCONNECT

from . import membership
from .codec import Position, parse_offset, parse_offset_ms
from .delivery import Connection, Delivery
from .errors import RedisUnavailable, SessionGone
from .orphans import NODE_LOST
from .outbox import Message, Outbox
from .sessions import Beat, Orphan, Pid, Record, Refused, Sessions, seen_by, start_of
from .tasks import Ordered

#: How large a binary packet may be, with all its attachments, in messages as large as the server takes.
MESSAGES_PER_PACKET = 16

#: How long a client's first packets may wait for its replay, in seconds.
CATCH_UP_INLINE = 0.05
#: How long a WebSocket may take to close before its TCP connection is cut, in seconds.
LINGER = 1.0


class ClientLeft(Exception):
    """The client closed its transport, or went on with another, during its handshake."""


class Attempt:
    """One client's try to connect to a namespace."""

    def __init__(self, pid: Pid | None, offset: Position | None, reason: str | None, offset_ms: int = 0) -> None:
        self.pid = pid
        self.offset = offset
        self.offset_ms = offset_ms  # when the entry at the offset was stored; 0 if not known
        self.reason = reason  # why it can't be recovered, as far as is known
        self.connection: Connection | None = None
        self.over = False


#: The attempt under way in this task; the connection whose handler runs in it; whether its transport was lost.
_attempt: ContextVar[Attempt | None] = ContextVar("socketio_recovery_attempt", default=None)
_current: ContextVar[Connection | None] = ContextVar("socketio_recovery_connection", default=None)
_lost: ContextVar[bool] = ContextVar("socketio_recovery_lost", default=False)


@contextmanager
def _set(variable: ContextVar[Any], value: object) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _attempted(connection: Connection) -> bool:
    """Whether the connection's handshake is what this task does."""
    attempt = _attempt.get()
    return attempt is not None and not attempt.over and attempt.connection is connection


def take_recovery(auth: Any) -> tuple[Attempt, Any]:
    """Takes ``pid`` and ``offset`` out of what the client sent.

    :returns: the attempt, and what is left for the application; ``None`` if nothing is.

    A ``pid`` that is not of our shape is the application's own and stays, with ``offset``.
    """
    if not isinstance(auth, dict) or auth.get("pid") is None:
        return Attempt(None, None, "new"), auth
    pid = Pid.parse(auth["pid"])
    if pid is None:
        return Attempt(None, None, "malformed"), auth
    rest = {key: value for key, value in auth.items() if key not in ("pid", "offset")}
    offset = None
    if auth.get("offset") is not None:
        offset = parse_offset(auth["offset"])
        if offset is None:
            return Attempt(None, None, "malformed"), rest or None
    return Attempt(pid, offset, None, parse_offset_ms(auth.get("offset"))), rest or None


class _NoSecrets(logging.Filter):
    """Keeps the ``pid`` out of what python-engineio logs of the packets it receives."""

    _pattern = re.compile(r"(pid\W{1,10}[\x21-\x7e]{1,128}?\.)[A-Za-z0-9_-]{32}")

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._redacted, record.args))
        return True

    def _redacted(self, argument: object) -> object:
        text = str(argument)  # what python-engineio takes for JSON is a dict or a list here
        redacted = self._pattern.sub(r"\1***", text)
        return argument if redacted == text else redacted


def redact(logger: Any) -> None:
    """Keeps secrets out of a logger's records."""
    logger = getattr(logger, "logger", logger)  # of a LoggerAdapter
    if hasattr(logger, "addFilter"):
        logger.addFilter(_NoSecrets())


def abort(socket: Any, tasks: Ordered) -> None:
    """Closes an Engine.IO socket so that its client comes back, at once and on either transport."""

    async def close() -> None:
        socket.queue.put_nowait(None)  # ends the WebSocket's writer: the client need not wait for handlers
        await socket.close(wait=False, abort=True, reason=socket.server.reason.TRANSPORT_CLOSE)
        socket.queue.put_nowait(None)  # ends a poll that waits

    tasks.start(("transport", socket.sid), close)


def _request(websocket: Any) -> Any:
    """The aiohttp request that became a WebSocket; ``None`` with another server."""
    return getattr(websocket, "environ", {}).get("aiohttp.request")


class Handshake:
    """Takes clients in and sees them off.

    :param skip_connect_handler: whether the ``connect`` handler is left out on recovery.
    :param offset_for: whether a client, given by its ``environ``, can use a ``pid`` and offsets.
    :param request_disconnect: disconnects a session on whatever node it is; called with sid, namespace.
    :param timeout: how long a client's handshake may wait for this node to follow the log, in seconds.
    """

    def __init__(
        self,
        server: Any,
        sessions: Sessions,
        delivery: Delivery,
        tasks: Ordered,
        request_disconnect: Callable[[str, str], Awaitable[None]],
        *,
        skip_connect_handler: bool,
        offset_for: Callable[[dict[str, Any]], bool],
        timeout: float,
        logger: logging.Logger,
    ) -> None:
        self.server = server
        self.sessions = sessions
        self.delivery = delivery
        self.tasks = tasks
        self.request_disconnect = request_disconnect
        self.skip_connect_handler = skip_connect_handler
        self.offset_for = offset_for
        self.timeout = timeout
        self.logger = logger
        self.draining = False
        #: How attempts ended: "recovered", or why not.
        self.outcomes: Counter[str] = Counter()
        #: What Redis did not take when clients left; see :meth:`settle`.
        self._owed: deque[Callable[[], Awaitable[bool]]] = deque()
        #: WebSockets, by transport.
        self._websockets: dict[str, Any] = {}

        self._connect = server._handle_connect
        self._send = server._send_packet
        self._trigger = server._trigger_event
        self._event = server._handle_event
        self._leave = server._handle_disconnect
        self._disconnect = server.disconnect
        self._get = server.get_session
        self._save = server.save_session
        self._emit = server.emit
        redact(server.eio.logger)
        self._message = server.eio.handlers["message"]
        self._transport_connect = server.eio.handlers["connect"]
        self._transport_disconnect = server.eio.handlers["disconnect"]
        server._handle_connect = self.handle_connect
        server._send_packet = self.send_packet
        server._trigger_event = self.trigger_event
        server._handle_event = self.handle_event
        server._handle_disconnect = self.handle_disconnect
        server.disconnect = self.disconnect
        server.get_session = self.get_session
        server.save_session = self.save_session
        server.emit = self.emit
        server.eio.create_queue = Outbox
        server.eio.on("message", self.message)
        server.eio.on("connect", self.transport_connected)
        server.eio.on("disconnect", self.transport_lost)

    # -- which connection a sid means ---------------------------------------------------------------

    def find(self, namespace: str, sid: str | None) -> Connection | None:
        """The connection of this node that ``sid`` means here: in a handler of its own, the handler's."""
        attempt = _attempt.get()
        own = attempt.connection if attempt is not None and not attempt.over else _current.get()
        if own is not None and not own.gone and (own.namespace, own.sid) == (namespace, sid):
            return own
        return self.delivery.by_sid(namespace, sid)

    # -- connecting ---------------------------------------------------------------------------------

    async def handle_connect(self, transport: str, namespace: str | None, data: Any) -> None:
        namespace = namespace or "/"
        if self.draining:
            self._abort(transport)
            return
        attempt, auth = take_recovery(data)
        try:
            with _set(_attempt, attempt):
                await self._connect(transport, namespace, auth)
        except ClientLeft:
            self.logger.info("a client left while it connected")
            await self._give_up(attempt, transport)
        except RedisUnavailable as error:
            self.logger.warning("a client could not connect, it will try again: %s", error)
            await self._give_up(attempt, transport)
        except BaseException:  # of the connect handler: the client must not wait for ever
            await self._give_up(attempt, transport)
            raise
        finally:
            attempt.over = True
        connection = attempt.connection
        if connection is not None and not connection.gone:
            connection.accepted = True
            await self._look_again(connection)

    async def pre_connect(self, transport: str, namespace: str) -> str | None:
        """Finds the session a client returns to, or gives it a new one.

        :returns: its ``sid``; ``None`` if the transport is connected to the namespace already.
        """
        attempt = _attempt.get()
        if attempt is None or attempt.over:
            attempt = Attempt(None, None, "new")
        until = asyncio.get_running_loop().time() + self.timeout
        while (before := self.delivery.by_transport(transport).get(namespace)) is not None:
            # the client left, and is back before its disconnect handler is done
            if not before.closing or asyncio.get_running_loop().time() > until:
                return None
            await asyncio.sleep(0.01)
        socket = self.server.eio.sockets.get(transport)
        if socket is None:
            return None
        connection = Connection("", namespace, transport, socket, uuid.uuid4().hex)
        attempt.connection = connection
        self.delivery.arrive(connection)
        capable = self.offset_for(self.server.environ.get(transport, {}))
        if not (attempt.pid is not None and capable and await self._recover(attempt, attempt.pid, connection)):
            await self._create(attempt, connection, capable)
        if socket.closed or socket.closing:
            raise ClientLeft
        outcome = "recovered" if connection.recovered else connection.reason or ""
        self.outcomes[outcome] += 1
        self.logger.info("%s connects to %s: %s", connection.sid, namespace, outcome)
        return connection.sid

    async def _recover(self, attempt: Attempt, pid: Pid, connection: Connection) -> bool:
        """Takes the session that the client shows a ``pid`` for; false, and why, if it can't go on."""
        connection.sid = pid.sid  # so that the next claim can evict this one
        connection.claimed = True  # perhaps, also when the reply is lost
        connection.kept_at = asyncio.get_running_loop().time()
        record = await self.sessions.claim(pid, connection.namespace, connection.token, connection.transport)
        if isinstance(record, Refused):
            connection.claimed = False
            attempt.reason = record.reason
            if record.reason == "damaged":
                self.logger.error("the record of session %s can't be read: %.500s", pid.sid, record.detail)
            return False
        if not await self._resume(attempt, record, connection):
            await self._release(connection, failed=True)
            connection.claimed = False
            return False
        connection.pid = str(pid)
        connection.socket.session[connection.namespace] = record.data
        return True

    async def _resume(self, attempt: Attempt, record: Record, connection: Connection) -> bool:
        """Proves that this node can give the client everything it missed; see the theory in sessions.py."""
        seen = seen_by(record, attempt.offset)
        if seen is None:
            attempt.reason = "epoch" if attempt.offset_ms else "offset"  # with a time it was one of ours once
            return False
        start = start_of(record, seen)
        await self._follow_to(record.last)
        # What the client saw may be gone with the log's tail, and other entries have its numbers by now. What was
        # confirmed is not: the record lost its tail with the log.
        suspect = bool(attempt.offset_ms) and attempt.offset is not None and record.confirmed < seen == attempt.offset.n
        attempt.reason = await self.delivery.reach_back(connection, start - suspect)
        if attempt.reason is not None:
            return False
        self._check(connection, record.last)
        if suspect and self.delivery.window.ms(seen) != attempt.offset_ms:
            attempt.reason = "epoch"
            return False
        rooms = membership.rooms_at(record.stays, record.last.n)
        if membership.forward(self.delivery.window, connection.namespace, connection.sid, rooms, record.last.n):
            attempt.reason = "unknown"  # disconnected by the application since it was claimed
            return False
        connection.rooms = rooms
        connection.behind_rooms = membership.rooms_at(record.stays, start)
        connection.position = start
        connection.sent = seen
        connection.recovered = connection.offsets = True
        connection.epoch = record.last.epoch
        self.delivery.add(connection)
        return True

    async def _create(self, attempt: Attempt, connection: Connection, capable: bool) -> None:
        """Gives the client a new session."""
        connection.sid = self.server.eio.generate_id()
        connection.token = uuid.uuid4().hex
        pid = Pid.new(connection.sid) if capable else None
        connection.created = True
        connection.kept_at = asyncio.get_running_loop().time()
        birth = await self.sessions.create(
            connection.sid, pid, connection.namespace, connection.token, connection.transport
        )
        await self._follow_to(birth)
        if await self.delivery.reach_back(connection, birth.n):  # the node has just booted, a little later than that
            raise RedisUnavailable("the log was trimmed past a client while it connected")
        self._check(connection, birth)
        connection.pid = str(pid) if pid else None
        connection.offsets = capable
        connection.reason = attempt.reason if capable else "client"
        connection.position = connection.sent = birth.n
        connection.epoch = birth.epoch
        self.delivery.add(connection)

    async def _follow_to(self, position: Position) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                await self.delivery.reached(position)
        except TimeoutError:
            raise RedisUnavailable(f"this node is more than {self.timeout:g} s behind the log") from None

    def _check(self, connection: Connection, position: Position) -> None:
        """The last look before a connection is added; nothing awaits between the two."""
        if connection.muted:
            raise ClientLeft  # by another connection, which has claimed the session since
        if self.delivery.cursor < position or self.delivery.cursor.epoch != position.epoch:
            raise RedisUnavailable("the log was begun anew just now")

    async def go_live(self, connection: Connection) -> None:
        """The client has its ``CONNECT``: it gets what it missed, then what comes.

        While python-engineio waits for this it reads nothing from the client, not even pongs. So when there is
        much to catch up on, the rest is sent in a task of its own.
        """
        connection.catching_up = task = asyncio.create_task(self._catch_up(connection))
        await asyncio.wait([task], timeout=CATCH_UP_INLINE)
        connection.announced = True  # whatever becomes of it: the connect handler has run
        task.add_done_callback(lambda _: self._caught_up(connection))

    async def _catch_up(self, connection: Connection) -> None:
        try:
            missed = await self.delivery.catch_up(connection)
        except LookupError:
            raise RedisUnavailable("the log was trimmed past a client while it caught up") from None
        if connection.recovered:
            self.logger.info("%s caught up on %d events", connection.sid, missed)

    def _caught_up(self, connection: Connection) -> None:
        task, connection.catching_up = connection.catching_up, None
        assert task is not None
        if task.cancelled() or connection.gone:
            return
        if error := task.exception():
            self.logger.warning("%s could not catch up, it will try again: %s", connection.sid, error)
            self._abort(connection.transport)
        elif connection.disconnected:
            self.start_disconnect(connection)

    async def _give_up(self, attempt: Attempt, transport: str) -> None:
        """The handshake failed: the client is to try again; a session it had is kept for that."""
        if attempt.connection is not None and not attempt.connection.gone:
            await self.leave(attempt.connection)
        self._abort(transport)

    async def _look_again(self, connection: Connection) -> None:
        """What python-socketio leaves open: the client may be gone, or disconnected, since it came."""
        socket = connection.socket
        if socket.closed or socket.closing:
            with _set(_lost, True):
                if connection.announced:
                    await self.handle_disconnect(
                        connection.transport, connection.namespace, self.server.reason.TRANSPORT_CLOSE
                    )
                else:
                    await self.leave(connection)
        elif connection.disconnected and not connection.closing:
            await self.disconnect(connection.sid, connection.namespace, ignore_queue=True)

    def _abort(self, transport: str) -> None:
        socket = self.server.eio.sockets.get(transport)
        if socket is not None:
            abort(socket, self.tasks)

    async def send_packet(self, transport: str, packet: Any) -> None:
        if packet.packet_type == CONNECT:
            connection = self.delivery.by_transport(transport).get(packet.namespace or "/")
            if connection is not None and _attempted(connection):
                if connection.pid is not None:
                    packet.data = {**packet.data, "pid": connection.pid}
                # Not by AsyncSocket.send: it logs what it sends, and the pid is a secret.
                connection.socket.queue.put_nowait(Message(packet.encode()))
                return
        elif packet.packet_type == DISCONNECT:
            connection = self.delivery.by_transport(transport).get(packet.namespace or "/")
            if connection is not None and not _attempted(connection) and not await self._forget(connection):
                # It has just been claimed by another connection, which is meant as well.
                await self.request_disconnect(connection.sid, connection.namespace)
        elif packet.packet_type in (ACK, BINARY_ACK):
            connection = self.delivery.by_transport(transport).get(packet.namespace or "/")
            if connection is not None and connection.catching_up is not None:
                await asyncio.wait([connection.catching_up])  # it comes after what was emitted before it
        await self._send(transport, packet)

    async def trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        if event == "connect" and self.skip_connect_handler:
            connection = self.find(namespace, args[0])
            if connection is not None and connection.recovered and _attempted(connection):
                return None
        if event == "disconnect":
            connection = self.find(namespace, args[0])
            if connection is not None and await self._adopted(connection):
                self.logger.info("%s was adopted by another node; its disconnect handler has run there", args[0])
                return None
        return await self._trigger(event, namespace, *args)

    async def message(self, transport: str, data: str | bytes) -> None:
        """A message from a client. python-socketio keeps any number of attachments until a packet is complete."""
        await self._message(transport, data)
        packet = self.server._binary_packet.get(transport)
        if packet is None:
            return
        limit = MESSAGES_PER_PACKET * self.server.eio.max_http_buffer_size
        before = getattr(packet, "size", 0)
        packet.size = before + len(data) + 100  # 100: what an empty one costs, roughly
        if packet.size > limit:
            packet.attachments.clear()  # and those that come until the transport is closed
            if before <= limit:
                self.logger.warning("a client sends a packet with too many attachments; closing its transport")
                self._abort(transport)

    async def handle_event(self, transport: str, namespace: str | None, id: Any, data: Any) -> None:
        """An event from a client: a list that begins with its name, which is none of python-socketio's own.

        By those names python-socketio would run the ``connect`` handler with an ``environ`` of the client's making,
        or the ``disconnect`` handler of a client that stays.
        """
        name = data[0] if isinstance(data, list) and data else None
        if not isinstance(name, (str, int)) or name in self.server.reserved_events:
            self.logger.info("a client sends what is no event, or one that only the server may cause: left out")
            return
        await self._event(transport, namespace, id, data)

    # -- leaving ------------------------------------------------------------------------------------

    async def transport_lost(self, transport: str, reason: str) -> None:
        if transport in self._websockets:
            asyncio.get_running_loop().call_later(LINGER, self._cut, transport)
        with _set(_lost, True):
            for namespace in list(self.delivery.by_transport(transport)):
                try:
                    await self.handle_disconnect(transport, namespace, reason)
                except Exception:  # of one namespace's handler; the others have theirs
                    self.logger.exception("disconnect handler error in namespace %s", namespace)
            self.server._binary_packet.pop(transport, None)
            await self._transport_disconnect(transport, reason)

    def _cut(self, transport: str) -> None:
        """Ends a WebSocket whose client does not read: its writer would wait, with all it took, until TCP gives up."""
        request = _request(self._websockets.get(transport))
        if request is not None and request.transport is not None:
            request.transport.abort()

    async def handle_disconnect(self, transport: str, namespace: str | None, reason: str | None = None) -> None:
        connection = self.delivery.by_transport(transport).get(namespace or "/")
        if connection is None or connection.closing or not connection.announced:
            return  # in its handshake: handle_connect looks again when that is over
        with _set(_current, connection):
            if not _lost.get():
                await self._forget(connection)
                if connection.closing:
                    return  # the application disconnected it meanwhile
            try:
                await self._leave(transport, connection.namespace, reason)
            finally:
                if not connection.gone:
                    await self.leave(connection)

    async def _adopted(self, connection: Connection) -> bool:
        """Whether another node took this one for dead, and runs the ``disconnect`` handler in its stead.

        Redis is asked only after a time without heartbeats that is long enough for that.
        """
        if connection.kept_at and asyncio.get_running_loop().time() - connection.kept_at >= self.sessions.ttl / 1000:
            try:
                lost = await self.sessions.heartbeat([Beat(connection.sid, connection.token, None, ())])
                connection.adopted = lost.get(0, False)
            except RedisUnavailable as error:
                self.logger.warning("can't ask whether session %s was adopted: %s", connection.sid, error)
        return connection.adopted

    async def run_orphan(self, orphan: Orphan, token: str) -> None:
        """Runs the ``disconnect`` handler for a session whose node died, and forgets the session."""
        socket = SimpleNamespace(session={orphan.namespace: orphan.data})
        connection = Connection(orphan.sid, orphan.namespace, "", socket, token)
        connection.accepted = connection.announced = connection.closing = connection.muted = True
        connection.rooms = orphan.rooms
        try:
            with _set(_current, connection):
                await self._trigger("disconnect", orphan.namespace, orphan.sid, NODE_LOST)
        finally:
            connection.gone = True
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # else it is not done; python-socketio hides that
                await self._forget(connection)

    async def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """Disconnects a client; on whatever node it is, unless ``ignore_queue``. See ``AsyncServer``."""
        connection = self.find(namespace or "/", sid)
        closing = connection is not None and connection.closing  # another task runs its handler
        with _set(_current, connection), _set(_lost, False), _set(_attempt, None):
            try:
                await self._disconnect(sid, namespace=namespace, ignore_queue=ignore_queue)
            finally:
                if connection is not None and connection.closing and not closing and not connection.gone:
                    await self.leave(connection)  # its disconnect handler raised

    def start_disconnect(self, connection: Connection) -> None:
        """The application disconnected the session, on any node: nobody can claim it any more."""
        connection.disconnected = True

        async def disconnect() -> None:
            if not connection.closing:
                await self.disconnect(connection.sid, connection.namespace, ignore_queue=True)

        self.tasks.start((connection.namespace, connection.sid), disconnect)

    def pre_disconnect(self, connection: Connection) -> None:
        """Its ``disconnect`` handler is about to run."""
        connection.closing = True
        self.delivery.mute(connection)

    async def leave(self, connection: Connection) -> None:
        """The end of a connection on this node; what becomes of its session depends on how it ended."""
        try:
            if not connection.accepted:  # refused, or the handshake failed
                if connection.claimed:
                    await self._release(connection, failed=True)
                elif connection.created:
                    await self._forget(connection)
            elif _lost.get() and connection.pid is not None and not connection.disconnected:
                await self._release(connection, failed=False)
            else:
                await self._forget(connection)
        finally:
            self.delivery.remove(connection)

    async def _release(self, connection: Connection, failed: bool) -> None:
        """The session waits for another connection; after a claim that failed, until the deadline it had."""
        sid, token = connection.sid, connection.token  # a connection whose claim failed gets others
        await self._settled(connection, lambda: self.sessions.detach(sid, token, failed))

    async def _forget(self, connection: Connection) -> bool:
        """The session is over: its ``pid`` is of no use from now on. False if it is another connection's."""
        if connection.forgotten:
            return True
        connection.forgotten = True
        return await self._settled(connection, lambda: self.sessions.forget(connection.sid, connection.token))

    async def _settled(self, connection: Connection, call: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await call()
        except Exception as error:  # not only RedisUnavailable: it may be out of memory
            self.logger.warning("%s left, but Redis can't be told yet: %s", connection.sid, error)
            self._owed.append(call)
            return True

    async def settle(self) -> None:
        """Tells Redis of the sessions that ended while it could not be reached.

        Their ``disconnect`` handlers have run: no other node should take them for orphans.

        :raises RedisUnavailable: if it still can't be.
        """
        for _ in range(len(self._owed)):
            try:
                await self._owed[0]()
            except RedisUnavailable:
                raise
            except Exception:
                self.logger.exception("Redis does not take that a session ended; will try again")
                self._owed.rotate(-1)
            else:
                self._owed.popleft()

    # -- the rest -----------------------------------------------------------------------------------

    async def get_session(self, sid: str, namespace: str | None = None) -> Any:
        """See ``AsyncServer.get_session``."""
        connection = self.find(namespace or "/", sid)
        if connection is not None:
            return connection.socket.session.setdefault(connection.namespace, {})
        return await self._get(sid, namespace=namespace)

    async def save_session(self, sid: str, session: Any, namespace: str | None = None) -> None:
        """Stores the session's data, here and in its record. See ``AsyncServer.save_session``.

        :raises TypeError: for what JSON can't hold; names the key. Nothing is stored.
        :raises SessionGone: if the session has another owner by now.
        """
        connection = self.find(namespace or "/", sid)
        if connection is not None and connection.pid is not None and not connection.forgotten:
            try:
                await self.sessions.save(sid, connection.token, session)
            except SessionGone:
                if not connection.closing and not connection.muted:
                    raise
                self.logger.info("session %s has gone on elsewhere; its old data is not stored", sid)
        if connection is not None:
            connection.socket.session[connection.namespace] = session
        else:
            await self._save(sid, session, namespace=namespace)

    async def emit(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        room: Any = None,
        skip_sid: Any = None,
        namespace: str | None = None,
        callback: Any = None,
        ignore_queue: bool = False,
        volatile: bool = False,
    ) -> None:
        """``AsyncServer.emit``, with ``volatile``: an event that is not worth replaying to who missed it."""
        if not volatile:
            await self._emit(event, data, to, room, skip_sid, namespace, callback, ignore_queue)
            return
        await self.server.manager.emit(
            *(event, data, namespace or "/"),
            room=to or room,
            skip_sid=skip_sid,
            callback=callback,
            ignore_queue=ignore_queue,
            volatile=True,
        )

    async def transport_connected(self, transport: str, environ: dict[str, Any]) -> Any:
        result = await self._transport_connect(transport, environ)
        socket = self.server.eio.sockets.get(transport)
        if socket is not None:
            self._watch(socket)
        return result

    def _watch(self, socket: Any) -> None:
        """Notes what was sent before each ping: when its pong comes, all that has arrived."""
        send, schedule_ping, serve = socket.send, socket.schedule_ping, socket._websocket_handler

        async def watched_websocket(websocket: Any) -> Any:
            outbox, request = socket.queue, _request(websocket)
            if socket.sid in self._websockets:  # two try at once to be what the client goes on with
                outbox.close()
            elif request is not None:
                outbox.open(socket, request.transport, bool(websocket._sock.compress))
            self._websockets[socket.sid] = websocket
            try:
                return await serve(websocket)
            finally:
                if self._websockets.get(socket.sid) is websocket:
                    del self._websockets[socket.sid]
                outbox.close()

        async def watched_send(packet: Any) -> None:
            if packet.packet_type == PING:
                self.delivery.pinged(socket.sid)
            await send(packet)

        def watched_schedule_ping() -> None:  # called when a pong comes
            if socket.last_ping:
                self.delivery.ponged(socket.sid)
            schedule_ping()

        socket.send, socket.schedule_ping = watched_send, watched_schedule_ping
        socket._websocket_handler = watched_websocket

"""Delivery: from an entry of the log to the queues of the transports on this node.

Where replay meets live.  A connection starts *behind*: everything up to its ``position`` is accounted for,
what follows is in the window. It catches up slice by slice. The slice that reaches the end of the window,
and joining the rooms' live members, are one synchronous step; dispatching a batch is another. So between
the two no entry can be missed and none can come twice, without a lock.

Everything here is synchronous but :meth:`Delivery.catch_up` and :meth:`Delivery.reached`: an entry causes
application code only by way of :attr:`Delivery.on_disconnect`, ``on_evict`` and ``on_callback``, which
start tasks.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from . import membership
from .codec import (
    CALLBACK,
    CLOSE,
    DISCONNECT,
    ENTER,
    EPOCH,
    EVENT,
    EVICT,
    LEAVE,
    Codec,
    Entry,
    Payload,
    Position,
    Room,
    converted,
    offset,
)
from .outbox import Message
from .window import Window

#: Events in one slice of a replay.
SLICE = 200
#: Volatile events that are kept for a client while it connects, at most.
HELD = 10_000


class Connection:
    """A session on a transport of this node: what a ``sid`` is here, now.

    A session that returns is another connection with the same ``sid``. For a moment both exist here.

    :param transport: the Engine.IO session id.
    :param socket: the Engine.IO socket.
    :param rooms: those the session is in at ``position``.
    """

    __slots__ = (
        "accepted",
        "acks",
        "adopted",
        "announced",
        "behind_rooms",
        "catching_up",
        "claimed",
        "closed_rooms",
        "closing",
        "confirmed",
        "created",
        "disconnected",
        "epoch",
        "forgotten",
        "gone",
        "held",
        "kept_at",
        "live",
        "muted",
        "namespace",
        "offsets",
        "pending",
        "pid",
        "pinged",
        "position",
        "reason",
        "recovered",
        "rooms",
        "sent",
        "sid",
        "socket",
        "stored_confirmed",
        "token",
        "transport",
    )

    def __init__(self, sid: str, namespace: str, transport: str, socket: Any, token: str) -> None:
        self.sid = sid
        self.namespace = namespace
        self.transport = transport
        self.socket = socket
        self.token = token
        self.pid: str | None = None  # None: this client can't use one
        self.offsets = False  # whether events carry an offset
        self.claimed = False  # its session is one that was before
        self.created = False  # its session is a new one
        self.recovered = False
        self.reason: str | None = None  # why it is not recovered
        self.epoch = 0
        self.rooms: membership.Rooms = {}  # at the node's cursor
        self.behind_rooms: membership.Rooms = {}  # at ``position``, until live
        self.position = 0  # accounted for up to here, until live
        self.live = False
        self.accepted = False  # the connect handler took it
        self.announced = False  # CONNECT was sent, and what was missed: python-socketio counts it as connected
        self.closing = False  # a disconnect handler runs, or ran
        self.muted = False  # gets no events any more
        self.disconnected = False  # by the application
        self.forgotten = False  # its session is
        self.adopted = False  # by another node, which took this one for dead
        self.kept_at = 0.0  # when Redis last heard of it, or later was not (event loop time, seconds)
        self.gone = False  # nothing of it is left here
        self.sent = 0  # the last number this client was given as an offset
        self.pinged: tuple[int, int] | None = None  # (position, sent) when the last ping was queued
        self.confirmed: tuple[int, int] | None = None  # the same, for the last ping that was answered
        self.stored_confirmed: tuple[int, int] | None = None
        self.closed_rooms: list[Room] = []  # closed since the last heartbeat
        self.acks: dict[int, tuple[str, int]] = {}  # acknowledgements the client owes: n -> (node, id)
        self.catching_up: asyncio.Task[None] | None = None
        self.held: list[Entry] = []  # for it, since it is here, but not in the window
        self.pending: list[Message] = []  # of the batch that is being dispatched


class Delivery:
    """Dispatches the log to this node's connections.

    :param window: filled here as the log is read.
    :param node: this node's name.
    :param max_queue: packets that may wait for one client; past that its transport is aborted. As many
        acknowledgements may be owed by it; past that the oldest is forgotten.
    :param abort: closes a transport so that the client comes back. Called with the Engine.IO socket.
    """

    def __init__(
        self, window: Window, node: str, max_queue: int, abort: Callable[[Any], None], logger: logging.Logger
    ) -> None:
        self.window = window
        self.node = node
        self.max_queue = max_queue
        self.abort = abort
        self.logger = logger
        self.codecs: list[Codec] = []  # the clients' first
        self.cursor = Position(0, 0)
        self._cursor_ms = 0  # when that entry was stored; 0 if it was not read
        self.started = False
        #: Live connections: namespace -> room -> connections. Room ``None`` is everybody.
        self._members: dict[str, dict[Room, dict[Connection, None]]] = {}
        #: All connections of this node, by session (the newest) and by transport.
        self._by_sid: dict[str, dict[str, Connection]] = {}
        self._by_transport: dict[str, dict[str, Connection]] = {}
        #: Those that are not live yet.
        self._behind: dict[Connection, None] = {}
        self._waiting: list[tuple[Position, int, Callable[[], None]]] = []
        self._tie = count()
        self._extending: asyncio.Task[str | None] | None = None
        self._wanted = sys.maxsize
        #: Positions that clients are about to go on from, so that they are not trimmed away meanwhile.
        self._pinned: dict[Connection, int] = {}
        #: Clients with too much to read when the last batch was dispatched.
        self._over: dict[Connection, None] = {}
        #: Clients that get something of the batch that is being dispatched.
        self._pending: list[Connection] = []
        self.backwards: Callable[[int, int, int, Callable[[list[Entry]], bool]], Awaitable[None]]
        self.on_disconnect: Callable[[Connection], None] = lambda connection: None
        self.on_evict: Callable[[Connection], None] = lambda connection: None
        self.on_callback: Callable[[int, Payload], None] = lambda id, payload: None

    # -- connections --------------------------------------------------------------------------------

    def arrive(self, connection: Connection) -> None:
        """Registers a connection with its transport: it can be evicted, and no other takes its place."""
        self._by_transport.setdefault(connection.transport, {})[connection.namespace] = connection

    def add(self, connection: Connection) -> None:
        """Registers a connection with its ``sid``: it follows the log, though it is not live yet."""
        self._by_sid.setdefault(connection.namespace, {})[connection.sid] = connection
        self._behind[connection] = None
        self._pinned.pop(connection, None)

    def remove(self, connection: Connection) -> None:
        """The end of a connection, here; its session may go on elsewhere."""
        self.mute(connection)
        connection.gone = True
        self._pinned.pop(connection, None)
        sids = self._by_sid.get(connection.namespace, {})
        if sids.get(connection.sid) is connection:
            del sids[connection.sid]
            if not sids:
                del self._by_sid[connection.namespace]
        namespaces = self._by_transport.get(connection.transport, {})
        if namespaces.get(connection.namespace) is connection:
            del namespaces[connection.namespace]
            if not namespaces:
                del self._by_transport[connection.transport]

    def mute(self, connection: Connection) -> None:
        """No event goes to this connection any more."""
        connection.muted = True
        self._behind.pop(connection, None)
        if connection.live:
            connection.live = False
            for room in (None, connection.sid, *connection.rooms):
                self._leave(connection, room)

    def by_sid(self, namespace: str, sid: str | None) -> Connection | None:
        return self._by_sid.get(namespace, {}).get(sid) if sid is not None else None

    def by_transport(self, transport: str) -> dict[str, Connection]:
        """The connections of one transport, by namespace."""
        return self._by_transport.get(transport, {})

    def connections(self) -> Iterator[Connection]:
        """All connections of this node."""
        for namespaces in self._by_transport.values():
            yield from namespaces.values()

    def rooms(self, namespace: str) -> dict[Room, dict[Connection, None]]:
        """The rooms of a namespace that have live connections on this node."""
        return self._members.get(namespace, {})

    def namespaces(self) -> set[str]:
        """The namespaces that have connections on this node."""
        return set(self._by_sid)

    def members(self, namespace: str, rooms: Sequence[Room]) -> Iterable[Connection]:
        """The live connections in any of ``rooms``; each once. No rooms: everybody."""
        index = self._members.get(namespace)
        if index is None:
            return ()
        if len(rooms) < 2:
            return index.get(rooms[0] if rooms else None, ())
        found: dict[Connection, None] = {}
        for room in rooms:
            found.update(index.get(room, {}))
        return found

    def pinged(self, transport: str) -> None:
        """A ping is about to be queued, behind all that was sent so far."""
        for connection in self.by_transport(transport).values():
            if connection.epoch == self.cursor.epoch and not connection.muted:
                upto = self.cursor.n if connection.live else connection.position
                connection.pinged = (upto, connection.sent)

    def ponged(self, transport: str) -> None:
        """The last ping was answered: all that was sent before it has arrived."""
        for connection in self.by_transport(transport).values():
            connection.confirmed = connection.pinged

    def _enter(self, connection: Connection, room: Room) -> None:
        rooms = self._members.setdefault(connection.namespace, {})
        rooms.setdefault(room, {})[connection] = None

    def _leave(self, connection: Connection, room: Room) -> None:
        rooms = self._members.get(connection.namespace, {})
        members = rooms.get(room, {})
        members.pop(connection, None)
        if not members and room in rooms:
            del rooms[room]
            if not rooms:
                del self._members[connection.namespace]

    # -- the log ------------------------------------------------------------------------------------

    def start(self, position: Position, ms: int, why: str) -> None:
        """Nothing before ``position`` is known on this node any more; see :meth:`Log.follow`."""
        self.cursor = position
        self._cursor_ms = 0
        self.started = True
        self.window.reset(position.n, ms)
        if why != "boot":
            connections = list(self.connections())
            if connections:
                self.logger.warning(
                    "this node lost its place in the log (%s): closing %d connections", why, len(connections)
                )
            for connection in connections:
                self.mute(connection)
                self.abort(connection.socket)
        # Entries of another epoch won't be read any more; who waits for them must not wait for ever.
        while self._waiting and (why != "boot" or self._waiting[0][0] <= position):
            heappop(self._waiting)[2]()

    def dispatch(self, entries: Sequence[Entry]) -> None:
        """Takes the next entries of the log, in order."""
        self._shed()
        for entry in entries:
            entry = self._converted(entry)
            try:
                self._dispatch(entry)
            except Exception:  # left out for all alike, those who recover included
                self.logger.exception("entry %d of the log could not be dispatched", entry.n)
                entry = Entry(EPOCH, entry.n, entry.ms)
            self.window.append(entry)
        self._flush()
        self.cursor = Position(self.cursor.epoch, entries[-1].n)
        self._cursor_ms = entries[-1].ms
        pins = (*self._pinned.values(), *(c.position for c in self._behind))
        self.window.trim(min(pins, default=sys.maxsize))
        self._release()

    def _converted(self, entry: Entry) -> Entry:
        """The entry with its payload in the serialisation of this node's clients; an empty one if it can't be."""
        try:
            if entry.payload and entry.payload.format != self.codecs[0].format:
                entry.payload = converted(entry.payload, self.codecs[0], self.codecs)
            return entry
        except Exception:
            self.logger.exception("entry %d of the log could not be converted", entry.n)
            return Entry(EPOCH, entry.n, entry.ms)

    def _dispatch(self, entry: Entry) -> None:
        kind = entry.kind
        if kind == EVENT:
            if not entry.replayed:
                self._hold(entry)
            members = self.members(entry.namespace, entry.rooms)
            if members:
                self._send(entry, members)
        elif kind in (ENTER, LEAVE):
            moved = self.by_sid(entry.namespace, entry.sid)
            if moved is not None:
                membership.move(moved.rooms, entry)
                if moved.live:
                    (self._enter if kind == ENTER else self._leave)(moved, entry.room)
        elif kind == CLOSE:
            for connection in [*self.members(entry.namespace, (entry.room,)), *self._behind]:
                if connection.namespace == entry.namespace and entry.room in connection.rooms:
                    membership.move(connection.rooms, entry)
                    connection.closed_rooms.append(entry.room)
                    if connection.live:
                        self._leave(connection, entry.room)
        elif kind == DISCONNECT:
            leaver = self.by_sid(entry.namespace, entry.sid)
            if leaver is not None and leaver.live:  # else it has yet to get what came before
                self.mute(leaver)
                self.on_disconnect(leaver)
        elif kind == EVICT:
            if entry.node == self.node:
                old = self.by_transport(entry.transport).get(entry.namespace)
                if old is not None and old.sid == entry.sid:
                    self.mute(old)
                    self.on_evict(old)
        elif kind == CALLBACK:
            assert entry.callback is not None
            assert entry.payload is not None
            node, id = entry.callback
            if node == self.node:
                self.on_callback(id, entry.payload)

    def _hold(self, entry: Entry) -> None:
        """Keeps an event that the window does not, for connections that are here but not live yet."""
        for connection in self._behind:
            if connection.namespace != entry.namespace or len(connection.held) >= HELD:
                continue
            if not entry.rooms or any(room == connection.sid or room in connection.rooms for room in entry.rooms):
                connection.held.append(entry)

    def _send(self, entry: Entry, members: Iterable[Connection]) -> None:
        """Adds an event to what its recipients get of this batch; :meth:`_flush` sends it."""
        payload, skip, n = entry.payload, entry.skip, entry.n
        assert payload is not None
        ack = None if entry.callback is None else n
        text = None if ack else offset(Position(self.cursor.epoch, n), entry.ms)
        with_offset: list[Message] = []
        without: list[Message] = []
        for connection in members:
            if skip and connection.sid in skip:
                continue
            if connection.offsets and text:
                if not with_offset:
                    with_offset = self._messages(entry.namespace, payload, text, None)
                messages = with_offset
                connection.sent = n
            else:
                if not without:
                    without = self._messages(entry.namespace, payload, None, ack)
                messages = without
                if ack:
                    assert entry.callback is not None
                    connection.acks[ack] = entry.callback
                    if len(connection.acks) > self.max_queue:  # a client that never acknowledges
                        del connection.acks[next(iter(connection.acks))]
            if not connection.pending:
                self._pending.append(connection)
            connection.pending += messages

    def _messages(self, namespace: str, payload: Payload, offset: str | None, id: int | None) -> list[Message]:
        return [Message(data) for data in self.codecs[0].packets(namespace, payload, offset, id)]

    def _flush(self) -> None:
        """Sends what a batch has for each client: everything at once."""
        for connection in self._pending:
            messages, connection.pending = connection.pending, []
            socket = connection.socket
            if socket.closed:
                continue
            outbox = socket.queue
            try:
                outbox.send(messages)
            except Exception:  # of one client: the others have theirs
                self.logger.exception("client %s could not be sent its messages; closing its transport", connection.sid)
                for other in list(self.by_transport(connection.transport).values()):
                    self.mute(other)  # what comes after must not reach it
                self.abort(socket)
            if outbox.qsize() > self.max_queue and connection.live:
                self._over[connection] = None
        self._pending.clear()

    def _shed(self) -> None:
        """Parts with clients that still have too much to read, though writers ran since the last batch."""
        for connection in self._over:
            if connection.live and connection.socket.queue.qsize() > self.max_queue:
                self._overflow(connection)
        self._over.clear()

    def _overflow(self, connection: Connection) -> None:
        """A client that does not read: it gets what it missed from the log when it can read again."""
        self.logger.info(
            "client %s does not read: %d packets wait; closing its transport", connection.sid, self.max_queue
        )
        queue = connection.socket.queue
        while not queue.empty():
            queue.get_nowait()
            queue.task_done()
        for other in list(self.by_transport(connection.transport).values()):
            self.mute(other)
        self.abort(connection.socket)

    def send_local(self, namespace: str, rooms: Sequence[Room], skip: Sequence[str], payload: Payload) -> None:
        """Delivers an event on this node only, past the log (``ignore_queue=True``)."""
        # Live connections were sent everything up to the cursor: it is their offset.
        entry = Entry(EVENT, self.cursor.n, self._cursor_ms)
        entry.namespace, entry.rooms, entry.skip, entry.payload = namespace, rooms, skip, payload
        self._hold(entry)
        self._send(entry, self.members(namespace, rooms))
        self._flush()

    # -- positions ----------------------------------------------------------------------------------

    def when(self, position: Position, done: Callable[[], None]) -> None:
        """Calls ``done`` once this node has dispatched ``position``."""
        if self.started and self.cursor >= position:
            done()
        else:
            heappush(self._waiting, (position, next(self._tie), done))

    async def reached(self, position: Position) -> None:
        """Waits until this node has dispatched ``position``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when(position, lambda: None if future.done() else future.set_result(None))
        await future

    def _release(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.cursor:
            heappop(self._waiting)[2]()

    async def reach_back(self, connection: Connection, n: int) -> str | None:
        """Extends the window backwards, so that it holds everything after ``n``, and keeps it for a connection.

        All who ask at the same time wait for the same reading of the stream.

        :returns: ``None`` if it does now; else why not: ``"trimmed"`` (the stream no longer has it) or
            ``"limit"`` (it does not fit into the window).
        :raises RedisUnavailable: if Redis does not answer.
        """
        self._pinned[connection] = n
        while self.window.floor > n:
            self._wanted = min(self._wanted, n)
            if self._extending is None:
                self._extending = asyncio.create_task(self._extend(), name="socketio_recovery extend")
            if failed := await asyncio.shield(self._extending):
                return None if self.window.floor <= n else failed
        return None

    async def _extend(self) -> str | None:
        """Reads what is wanted of the log before the window; returns why there is no more, if so."""
        window, epoch = self.window, self.cursor.epoch
        failed: str | None = "trimmed"  # if the stream is read to its beginning

        def take(chunk: list[Entry]) -> bool:
            nonlocal failed
            if self.cursor.epoch != epoch or window.floor != chunk[-1].n:
                failed = None  # the window was trimmed, or begun anew, meanwhile: ask again
                return False
            window.prepend([self._converted(entry) for entry in chunk])
            if window.full:
                window.trim()
                failed = "limit"
                return False
            if window.floor <= self._wanted:
                failed = None
                return False
            return True

        try:
            await self.backwards(epoch, window.floor, window.floor_ms, take)
            return failed
        finally:
            self._extending = None
            self._wanted = sys.maxsize

    # -- catching up --------------------------------------------------------------------------------

    async def catch_up(self, connection: Connection) -> int:
        """Sends what the connection is behind, and makes it live.

        :returns: how many events it had missed.
        :raises LookupError: if the window lost them meanwhile.

        Stops early, without making it live, when the transport closes or the session is disconnected
        (``connection.disconnected``).
        """
        missed = 0
        limit = max(1, min(SLICE, self.max_queue // 4))
        queue = connection.socket.queue
        while not connection.socket.closed:
            slice = membership.replay(
                self.window, connection.namespace, connection.sid, connection.behind_rooms, connection.position, limit
            )
            connection.position = slice.position
            missed += len(slice.events)
            held = [entry for entry in connection.held if entry.n <= slice.position]
            del connection.held[: len(held)]
            for entry in sorted(slice.events + held, key=lambda entry: entry.n):
                self._send(entry, (connection,))
            self._flush()
            if slice.ended:
                connection.disconnected = True
                self.mute(connection)
            if connection.muted:
                return missed
            if slice.done:
                self._go_live(connection)
                return missed
            while queue.qsize() > limit // 2 and not connection.socket.closed:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0)
        return missed

    def _go_live(self, connection: Connection) -> None:
        assert connection.behind_rooms.keys() == connection.rooms.keys()
        connection.live = True
        connection.behind_rooms = {}
        del self._behind[connection]
        for room in (None, connection.sid, *connection.rooms):
            self._enter(connection, room)

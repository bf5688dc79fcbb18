"""Delivery: from an entry of the log to the send queues of this node's clients.  No I/O.

Where replay meets live delivery.  A connection starts *behind*: everything up to its ``after`` is accounted for. It
catches up slice by slice: from the stream (:meth:`Delivery.look_back`) until the window holds what follows, and then
from the window (:meth:`Delivery.replay`). The slice that reaches the end of the window and joining the rooms' live
members are one synchronous step. Dispatching a batch is another. So no entry can be missed or come twice between the
two, without a lock.

What an entry causes beyond that, such as running a ``disconnect`` handler, is started by :class:`Effects`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

from . import membership
from .connections import Connection, Connections, Flow
from .entries import (
    CALLBACK,
    CLOSE,
    DISCONNECT,
    ENTER,
    EPOCH,
    EVENT,
    EVICT,
    LEAVE,
    SERVER,
    Entry,
    Payload,
    Position,
    Room,
    offset_text,
)
from .errors import RecordDamaged
from .log_cursor import Stamped, parsed
from .look_back import Audience
from .membership import Replay
from .metrics import NO_METRICS, Metrics
from .packets import Codec, Message, converted
from .partition import Partition
from .reasons import Ending, RestartReason
from .replayed import Replayed
from .tracing import Tracing

#: Events in one slice of a replay, and bytes.
SLICE, SLICE_BYTES = 200, 1 << 20
#: Volatile events that are kept for a client while it connects, at most.
HELD = 10_000


class Effects(Protocol):
    """What entries cause outside of this file. Each call only starts something."""

    def close_transport(self, socket: Any) -> None:
        """Closes an Engine.IO socket so that its client comes back."""

    def disconnect(self, connection: Connection) -> None:
        """The application disconnected the session: runs its ``disconnect`` handler."""

    def answer(self, callback_id: int, payload: Payload, by: str) -> None:
        """A client acknowledged an event of this node, or a node answered it: runs the callback."""

    def server_side(self, entry: Entry) -> None:
        """Another process emitted an event to the nodes: runs its handler."""

    def participants(self, entry: Entry) -> None:
        """An entry that is no event: somebody, on whatever node, may have come, gone, or changed rooms."""

    def entered(self, connection: Connection, room: Room) -> None:
        """A connection of this node entered a room."""

    def left(self, connection: Connection, room: Room) -> None:
        """A connection of this node left a room, or the room was closed."""


class Delivery:
    """Dispatches a partition's entries to this node's connections.

    :param codecs: the serialisations that entries may have; the first is that of this node's clients.
    :param node: this node's name.
    :param max_queue: packets that may wait for one client. When more do, its transport is closed. A client may also owe
        so many acknowledgements; when it owes more, the oldest is forgotten.
    :param max_queue_bytes: the same in bytes.
    """

    def __init__(
        self,
        partition: Partition,
        connections: Connections,
        codecs: Sequence[Codec],
        effects: Effects,
        node: str,
        max_queue: int,
        max_queue_bytes: int,
        logger: logging.Logger,
        metrics: Metrics = NO_METRICS,
        tracing: Tracing | None = None,
    ) -> None:
        self.partition = partition
        self.connections = connections
        self.codecs = codecs
        self.effects = effects
        self.node = node
        self.max_queue = max_queue
        self.max_queue_bytes = max_queue_bytes
        self.metrics = metrics
        self.tracing = tracing or Tracing()
        #: Spans of the entries that are being dispatched.
        self._spans: list[Any] = []
        #: What the batch that is being dispatched delivers: events, and bytes. Counted only for metrics.
        self._counts = metrics is not NO_METRICS
        self._delivered = self._delivered_bytes = 0
        self.logger = logger
        #: Events in one slice of a replay, and bytes. A slice must not fill a client's queue.
        self.slice = max(1, min(SLICE, max_queue // 4))
        self.slice_bytes = max(1, min(SLICE_BYTES, max_queue_bytes // 4))
        #: Clients with too much to read when the last batch was dispatched.
        self._over: dict[Connection, None] = {}
        #: Clients that get something of the batch that is being dispatched.
        self._sending: list[Connection] = []
        self._replayed = Replayed()

    # -- the log ------------------------------------------------------------------------------------

    def restart(self, position: Position, why: RestartReason) -> None:
        """This node knows nothing of the log before ``position``.

        But for the first time, what its clients have is no longer certain: their transports are closed, and they
        recover from the stream or are told that they can't.
        """
        self.partition.restart(position)
        self._replayed = Replayed()
        if why is not RestartReason.BOOT:
            connections = list(self.connections)
            if connections:
                self.logger.warning(
                    "this node lost its place in the log (%s): closing %d connections", why, len(connections)
                )
            for connection in connections:
                self.connections.mute(connection)
                self.effects.close_transport(connection.socket)
        self.partition.restarted(why)

    def dispatch(self, entries: Sequence[Entry]) -> None:
        """Takes the next entries of the log, in order."""
        self._shed()
        window = self.partition.window
        for entry in entries:
            entry = self.converted(entry)
            try:
                self._dispatch(entry)
            except Exception:  # left out for all alike, clients that recover included
                self.logger.exception("entry %d of the log could not be dispatched", entry.n)
                entry = Entry(EPOCH, entry.n, entry.ms)
            window.append(entry)
        self._flush()
        if self._spans:
            for span in filter(None, self._spans):
                span.end()
            self._spans.clear()
        self.metrics.dispatched(len(entries))
        self.partition.dispatched(entries)

    def converted(self, entry: Entry) -> Entry:
        """The entry with its payload in the serialisation of this node's clients; without content if it has none."""
        try:
            if entry.payload and entry.payload.format != self.codecs[0].format:
                entry.payload = converted(entry.payload, self.codecs[0], self.codecs)
            return entry
        except Exception:
            self.logger.exception("entry %d of the log could not be converted", entry.n)
            return Entry(EPOCH, entry.n, entry.ms)

    def _dispatch(self, entry: Entry) -> None:
        kind = entry.kind
        connections = self.connections
        if kind != EVENT:
            self.effects.participants(entry)
        if kind == EVENT:
            if not entry.replayed:
                self._hold(entry)
            members = connections.live.members(entry.namespace, entry.rooms)
            if members:
                if entry.trace:
                    self._spans.append(self.tracing.dispatch(entry, len(members)))
                self._send(entry, members)
        elif kind in (ENTER, LEAVE):
            moved = connections.by_sid(entry.namespace, entry.sid)
            if moved is not None:
                membership.move(moved.rooms, entry)
                if moved.flow is Flow.LIVE:
                    (connections.live.enter if kind == ENTER else connections.live.leave)(moved, entry.room)
                (self.effects.entered if kind == ENTER else self.effects.left)(moved, entry.room)
        elif kind == CLOSE:
            for connection in [*connections.live.members(entry.namespace, (entry.room,)), *connections.behind]:
                if connection.namespace == entry.namespace and entry.room in connection.rooms:
                    membership.move(connection.rooms, entry)
                    connection.closed_rooms.append(entry.room)
                    if connection.flow is Flow.LIVE:
                        connections.live.leave(connection, entry.room)
                    self.effects.left(connection, entry.room)
        elif kind == DISCONNECT:
            leaver = connections.by_sid(entry.namespace, entry.sid)
            if leaver is not None and leaver.flow is Flow.LIVE:  # else it has yet to get what came before
                connections.mute(leaver)
                leaver.end(Ending.DISCONNECTED)
                self.effects.disconnect(leaver)
        elif kind == EVICT:
            if entry.node == self.node:
                old = connections.by_transport(entry.transport).get(entry.namespace)
                if old is not None and old.sid == entry.sid:
                    connections.mute(old)
                    self.effects.close_transport(old.socket)
        elif kind == CALLBACK:
            assert entry.callback is not None
            assert entry.payload is not None
            node, id = entry.callback
            if node == self.node:
                self.effects.answer(id, entry.payload, entry.by)
        elif kind == SERVER:
            assert entry.callback is not None
            if entry.callback[0] != self.node:
                self.effects.server_side(entry)

    def _hold(self, entry: Entry) -> None:
        """Keeps an event that the window does not hold, for connections that follow the log but are not live yet."""
        for connection in self.connections.behind:
            if connection.namespace != entry.namespace or len(connection.held) >= HELD:
                continue
            if not entry.rooms or any(room == connection.sid or room in connection.rooms for room in entry.rooms):
                connection.held.append(entry)

    def send_local(self, namespace: str, rooms: Sequence[Room], skip: Sequence[str], payload: Payload) -> None:
        """Delivers an event on this node only, past the log (``ignore_queue=True``)."""
        # Live connections were sent everything up to the partition's position: it is their offset.
        entry = Entry(EVENT, self.partition.position.n, self.partition.ms)
        entry.namespace, entry.rooms, entry.skip, entry.payload = namespace, rooms, skip, payload
        self._hold(entry)
        self._send(entry, self.connections.live.members(namespace, rooms))
        self._flush()

    # -- catching up --------------------------------------------------------------------------------

    def look_back(self, audience: Audience, entries: Iterable[Stamped]) -> None:
        """Dispatches once more what was read from the stream, to connections that missed it."""
        try:
            for stamped in entries:
                entry = self.converted(parsed(stamped, self.logger))
                concerned = audience.concerned(entry)
                for connection in concerned:
                    self._send_held(connection, entry.n)
                    if entry.kind == EVENT:
                        connection.missed += 1
                    elif entry.kind == DISCONNECT:
                        self._disconnected(connection)
                    else:
                        audience.move(connection, entry)
                if entry.kind == EVENT:
                    self._send(entry, concerned)
        finally:
            for connection in audience.connections:
                connection.after = audience.after
                self._send_held(connection, audience.after + 1)
            self._flush()

    def replay(self, connection: Connection) -> Replay:
        """Sends the next slice of what a connection is behind. The last slice makes it live.

        A session that the application disconnected while it was away is muted at that place; its ``ending`` says so.

        :raises LookupError: if the window does not hold what the connection missed: look back first.
        :raises RecordDamaged: if the session's record and the log do not agree on its rooms.
        """
        slice = membership.replay(
            self.partition.window,
            connection.namespace,
            connection.sid,
            connection.rooms_then,
            connection.after,
            self.slice,
            self.slice_bytes,
        )
        connection.after = slice.upto
        connection.missed += len(slice.events)
        for entry in slice.events:
            if connection.held:
                self._send_held(connection, entry.n)
            self._send(entry, (connection,), self._replayed)
        self._send_held(connection, slice.upto + 1)
        self._flush()
        if slice.ended:
            self._disconnected(connection)
        elif slice.done and connection.flow is Flow.BEHIND:
            if connection.rooms_then.keys() != connection.rooms.keys():
                raise RecordDamaged(connection.sid)
            self.connections.go_live(connection)
            if not self.connections.behind:
                self._replayed = Replayed()
        return slice

    def _disconnected(self, connection: Connection) -> None:
        """The application disconnected the session while its client was away."""
        connection.end(Ending.DISCONNECTED)
        self.connections.mute(connection)

    def _send_held(self, connection: Connection, n: int) -> None:
        """Sends what was kept for a connection and came before entry ``n``."""
        held = connection.held if connection.flow is not Flow.MUTED else ()
        while held and held[0].n < n:
            self._send(held.pop(0), (connection,))

    # -- to the send queues -------------------------------------------------------------------------

    def _send(self, entry: Entry, members: Collection[Connection], replayed: Replayed | None = None) -> None:
        """Adds an event to what its recipients get of this batch; :meth:`_flush` sends it.

        :param replayed: has the messages of events that others have missed as well.
        """
        payload, skip, n = entry.payload, entry.skip, entry.n
        assert payload is not None
        ack = None if entry.callback is None else n
        with_offset: list[Message] = []
        without: list[Message] = []
        for connection in members:
            if skip and connection.sid in skip:
                continue
            if ack is None and connection.pid is not None:
                if not with_offset:
                    with_offset = replayed.get(n) if replayed is not None else []
                if not with_offset:
                    offset = offset_text(self.partition.position.epoch, n, entry.ms)
                    with_offset = self._messages(entry.namespace, payload, offset, None)
                    if replayed is not None:
                        replayed.keep(n, with_offset)
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
            if not connection.sending:
                self._sending.append(connection)
            connection.sending += messages
        if self._counts:
            count = sum(member.sid not in skip for member in members) if skip else len(members)
            self._delivered += count
            self._delivered_bytes += count * entry.size

    def _messages(self, namespace: str, payload: Payload, offset: str | None, id: int | None) -> list[Message]:
        return [Message(data) for data in self.codecs[0].packets(namespace, payload, offset, id)]

    def _flush(self) -> None:
        """Sends what a batch has for each client: everything at once."""
        for connection in self._sending:
            messages, connection.sending = connection.sending, []
            socket = connection.socket
            if socket.closed:
                continue
            queue = socket.queue
            try:
                queue.send(messages)
            except Exception:  # of one client: the others have theirs
                self.logger.exception("client %s could not be sent its messages; closing its transport", connection.sid)
                for other in list(self.connections.by_transport(connection.transport).values()):
                    self.connections.mute(other)  # what comes after must not reach it
                self.effects.close_transport(socket)
            if self._overfull(queue) and connection.flow is Flow.LIVE:
                self._over[connection] = None
        self._sending.clear()
        if self._delivered:
            self.metrics.delivered(self._delivered, self._delivered_bytes)
            self._delivered = self._delivered_bytes = 0

    def _shed(self) -> None:
        """Parts with clients that still have too much to read, though their writers ran since the last batch."""
        for connection in self._over:
            if connection.flow is Flow.LIVE and self._overfull(connection.socket.queue):
                self._overflow(connection)
        self._over.clear()

    def _overfull(self, queue: Any) -> bool:
        # One message may be larger than all that may wait.
        waiting: int = queue.qsize()
        return waiting > self.max_queue or (waiting > 1 and queue.bytes > self.max_queue_bytes)

    def _overflow(self, connection: Connection) -> None:
        """A client that does not read: it gets what it missed from the log when it reads again."""
        self.logger.info(
            "client %s does not read: %d packets of %d bytes wait; closing its transport",
            *(connection.sid, connection.socket.queue.qsize(), connection.socket.queue.bytes),
        )
        queue = connection.socket.queue
        while not queue.empty():
            queue.get_nowait()
            queue.task_done()
        for other in list(self.connections.by_transport(connection.transport).values()):
            self.connections.mute(other)
        self.metrics.overflowed()
        self.effects.close_transport(connection.socket)

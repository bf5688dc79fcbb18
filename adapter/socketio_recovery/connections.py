"""Connections: the states in which one can be, and the registry of this node's connections.  No I/O.

A *connection* is a session on one transport of one node. A session that returns is another connection with the same
``sid``; for a moment both may exist on one node.

Three aspects of a connection change while it lives. Each is an enum, and :data:`TRANSITIONS` says everything about how
they change:

* ``state``: what python-socketio and the application know of it;
* ``flow``: whether it gets events from the log;
* ``hold``: what it holds of its session in Redis, and so what has to be given back when it ends.

How it ends is a value, too: ``ending``. What ends it first decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal

from .entries import Entry, Room
from .membership import Rooms
from .packets import Message
from .partition import Partition
from .reasons import Ending, Outcome


class State(Enum):
    """What python-socketio and the application know of a connection."""

    #: It is registered with its transport, so that no other takes its place. Its session is being claimed or created.
    ARRIVED = "arrived"
    #: It has its session and follows the log. The ``connect`` handler runs, or is about to.
    CONNECTING = "connecting"
    #: The client has its CONNECT packet. To python-socketio it is connected.
    CONNECTED = "connected"
    #: The ``disconnect`` handler runs, or is about to; or the ``connect`` handler refused it.
    LEAVING = "leaving"
    #: Nothing of it is left on this node.
    GONE = "gone"


class Flow(Enum):
    """Whether a connection gets events from the log."""

    #: Not yet: it has to catch up first.
    BEHIND = "behind"
    #: It gets each event when the node dispatches it.
    LIVE = "live"
    #: Not any more.
    MUTED = "muted"


class Hold(Enum):
    """What a connection holds of its session in Redis."""

    #: Nothing.
    NONE = "none"
    #: A session that was there before. It is given back as it was if the handshake fails.
    CLAIMED = "claimed"
    #: A new session. It is forgotten if the handshake fails.
    CREATED = "created"
    #: A session that the ``connect`` handler took. Its connection's ``ending`` decides what becomes of it.
    ACCEPTED = "accepted"
    #: The session is over.
    FORGOTTEN = "forgotten"
    #: Another node took this one for dead, and runs the ``disconnect`` handler.
    ADOPTED = "adopted"


#: What can happen to a connection.
Event = Literal[
    "added",
    "greeted",
    "leaves",
    "removed",
    "caught up",
    "muted",
    "claims",
    "gives back",
    "creates",
    "accepted",
    "forgets",
    "adopted",
]

_HELD: Final = (Hold.CLAIMED, Hold.CREATED, Hold.ACCEPTED, Hold.FORGOTTEN)

#: Each event changes one aspect: from each value that it may have, to the value that it has then.
TRANSITIONS: Final[Mapping[Event, Mapping[Any, State | Flow | Hold]]] = {
    # It has its session and is listed by its sid.
    "added": {State.ARRIVED: State.CONNECTING},
    # CONNECT was sent, and what was missed is on its way.
    "greeted": {State.CONNECTING: State.CONNECTED, State.GONE: State.GONE},
    # Its disconnect handler is about to run, or its connect handler refused it.
    "leaves": {State.CONNECTED: State.LEAVING, State.LEAVING: State.LEAVING},
    "removed": dict.fromkeys(State, State.GONE),
    # It has got everything up to the end of the window.
    "caught up": {Flow.BEHIND: Flow.LIVE},
    "muted": dict.fromkeys(Flow, Flow.MUTED),
    # It may have claimed a session: the reply can be lost.
    "claims": {Hold.NONE: Hold.CLAIMED},
    "gives back": {Hold.CLAIMED: Hold.NONE},
    "creates": {Hold.NONE: Hold.CREATED},
    # Its connect handler is done; the session may be over by now.
    "accepted": {
        Hold.CLAIMED: Hold.ACCEPTED,
        Hold.CREATED: Hold.ACCEPTED,
        Hold.FORGOTTEN: Hold.FORGOTTEN,
        Hold.ADOPTED: Hold.ADOPTED,
    },
    "forgets": {**dict.fromkeys(_HELD, Hold.FORGOTTEN), Hold.ADOPTED: Hold.ADOPTED},
    "adopted": {**dict.fromkeys(_HELD, Hold.ADOPTED), Hold.ADOPTED: Hold.ADOPTED},
}

_ASPECT: Final = {
    event: {State: "state", Flow: "flow", Hold: "hold"}[type(next(iter(changes)))]
    for event, changes in TRANSITIONS.items()
}


class Connection:
    """A session on a transport of this node: what a ``sid`` is here, now.

    :param sid: the session id. It never changes: a client whose session can't be recovered gets another connection.
    :param transport: the Engine.IO session id.
    :param socket: the Engine.IO socket.
    :param token: names this connection as the owner of its session in Redis.
    :param pid: what the client shows to get the session back; ``None`` if the client can't use one.
    """

    __slots__ = (
        "acks",
        "after",
        "catching_up",
        "closed_rooms",
        "confirmed",
        "ending",
        "environ",
        "epoch",
        "extra",
        "flow",
        "held",
        "hold",
        "kept_at",
        "missed",
        "namespace",
        "outcome",
        "pid",
        "pinged",
        "rooms",
        "rooms_then",
        "seen_off",
        "sending",
        "sent",
        "sid",
        "since",
        "socket",
        "state",
        "stored_confirmed",
        "token",
        "transport",
    )

    def __init__(
        self, sid: str, namespace: str, transport: str, socket: Any, token: str, pid: str | None = None
    ) -> None:
        self.sid: Final = sid
        self.namespace: Final = namespace
        self.transport: Final = transport
        self.socket = socket
        self.token: Final = token
        self.pid: Final = pid
        self.state = State.ARRIVED
        self.flow = Flow.BEHIND
        self.hold = Hold.NONE
        self.ending: Ending | None = None
        self.outcome: Outcome | None = None
        self.epoch = 0
        #: What the record keeps as ``extra``, as far as this node knows it.
        self.extra: str | None = None
        #: The WSGI environ, once a server needs it: python-socketio forgets it while handlers are still to run.
        self.environ: dict[str, Any] | None = None
        #: The rooms at the end of the window.
        self.rooms: Rooms = {}
        #: Until it is live: everything up to this number is accounted for; the rooms at that number.
        self.after = 0
        self.rooms_then: Rooms = {}
        #: How many events it has been sent since it came back.
        self.missed = 0
        #: When its CONNECT packet came (event loop time, seconds).
        self.since = 0.0
        #: When Redis last extended the session's deadline, or earlier (event loop time, seconds).
        self.kept_at = 0.0
        #: The last number that this client was given as an offset.
        self.sent = 0
        #: A pair (number, ``sent``), as it was when the last ping was queued; as it was when the last ping that was
        #: answered was queued; as the session record has it.
        self.pinged: tuple[int, int] | None = None
        self.confirmed: tuple[int, int] | None = None
        self.stored_confirmed: tuple[int, int] | None = None
        #: Rooms that were closed since the last heartbeat.
        self.closed_rooms: list[Room] = []
        #: The acknowledgements that the client owes: number of the event -> (node that waits, id of its callback).
        self.acks: dict[int, tuple[str, int]] = {}
        #: The task that sends what was missed.
        self.catching_up: Any = None
        #: Events for it that the window does not hold, dispatched while it was behind.
        self.held: list[Entry] = []
        #: Whether somebody sees it off.
        self.seen_off = False
        #: What the batch that is being dispatched has for it.
        self.sending: list[Message] = []

    @classmethod
    def of_orphan(cls, sid: str, namespace: str, socket: Any, token: str, rooms: Rooms) -> Connection:
        """Stands for the connection of a dead node while this node runs its ``disconnect`` handler."""
        connection = cls(sid, namespace, "", socket, token)
        connection.rooms = rooms
        connection.state, connection.flow, connection.hold = State.LEAVING, Flow.MUTED, Hold.ACCEPTED
        return connection

    def note(self, event: Event) -> None:
        """Moves the aspect that ``event`` changes, by :data:`TRANSITIONS`.

        :raises RuntimeError: if that can't happen to a connection as it is: a mistake in this library.
        """
        aspect = _ASPECT[event]
        value = getattr(self, aspect)
        after = TRANSITIONS[event].get(value)
        if after is None:
            raise RuntimeError(f"{event!r} can't happen to a connection that is {value.value}")
        setattr(self, aspect, after)

    @property
    def recovered(self) -> bool:
        """Whether its session is one that the client had before."""
        return self.outcome is Outcome.RECOVERED

    def see_off(self) -> bool:
        """Whether the caller is the one who sees it off: has its ``disconnect`` handler run, and ends it.

        The state says so only when python-socketio calls back (``leaves``), and threads may get in between.
        """
        first, self.seen_off = not self.seen_off, True
        return first

    def end(self, ending: Ending) -> None:
        """Notes how the connection ends, unless that is known."""
        if self.ending is None:
            self.ending = ending


class RoomIndex:
    """Which connections are in which room, by namespace. Room ``None`` is everybody."""

    def __init__(self) -> None:
        self._members: dict[str, dict[Room, dict[Connection, None]]] = {}

    def rooms(self, namespace: str) -> dict[Room, dict[Connection, None]]:
        """The rooms of a namespace that have members."""
        return self._members.get(namespace, {})

    def members(self, namespace: str, rooms: Sequence[Room]) -> Collection[Connection]:
        """The connections in any of ``rooms``, each once. No rooms: everybody."""
        index = self._members.get(namespace)
        if index is None:
            return ()
        if len(rooms) < 2:
            return index.get(rooms[0] if rooms else None, ())
        found: dict[Connection, None] = {}
        for room in rooms:
            found.update(index.get(room, {}))
        return found

    def enter(self, connection: Connection, room: Room) -> None:
        """Adds a connection to a room."""
        rooms = self._members.setdefault(connection.namespace, {})
        rooms.setdefault(room, {})[connection] = None

    def leave(self, connection: Connection, room: Room) -> None:
        """Removes a connection from a room."""
        rooms = self._members.get(connection.namespace, {})
        members = rooms.get(room, {})
        members.pop(connection, None)
        if not members and room in rooms:
            del rooms[room]
            if not rooms:
                del self._members[connection.namespace]

    def add(self, connection: Connection, rooms: Iterable[Room]) -> None:
        """Adds a connection to ``rooms`` and to those in which it always is."""
        for room in (None, connection.sid, *rooms):
            self.enter(connection, room)

    def remove(self, connection: Connection, rooms: Iterable[Room]) -> None:
        """Removes a connection from ``rooms`` and from those in which it always is."""
        for room in (None, connection.sid, *rooms):
            self.leave(connection, room)


class Connections:
    """The connections of this node that follow one partition.

    :param partition: the log that they follow.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        #: Those that are not live yet but follow the log.
        self.behind: dict[Connection, None] = {}
        self._by_sid: dict[str, dict[str, Connection]] = {}
        self._by_transport: dict[str, dict[str, Connection]] = {}
        #: The live connections by room: they get what is emitted to it.
        self.live = RoomIndex()
        self._waiters: list[Callable[[], None]] = []

    # -- from arriving to gone ----------------------------------------------------------------------

    def arrive(self, connection: Connection) -> None:
        """Registers a connection with its transport: it can be evicted, and no other takes its place."""
        self._by_transport.setdefault(connection.transport, {})[connection.namespace] = connection

    def add(self, connection: Connection) -> None:
        """Registers a connection with its ``sid``: it follows the log, though it is not live yet.

        What it needs of the window from now on, the stream has as well.
        """
        connection.note("added")
        self._by_sid.setdefault(connection.namespace, {})[connection.sid] = connection
        self.behind[connection] = None
        self.partition.unpin(connection)

    def go_live(self, connection: Connection) -> None:
        """A connection has caught up: it gets from now on what is dispatched to its rooms."""
        connection.note("caught up")
        connection.rooms_then = {}
        del self.behind[connection]
        self.live.add(connection, connection.rooms)

    def mute(self, connection: Connection) -> None:
        """No event goes to this connection any more."""
        live = connection.flow is Flow.LIVE
        connection.note("muted")
        self.behind.pop(connection, None)
        self.partition.unpin(connection)
        if live:
            self.live.remove(connection, connection.rooms)

    def remove(self, connection: Connection) -> None:
        """The end of a connection on this node. Its session may go on elsewhere."""
        self.mute(connection)
        connection.note("removed")
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
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()

    def when_removed(self, done: Callable[[], None]) -> None:
        """Calls ``done`` once, after the next connection is removed."""
        self._waiters.append(done)

    # -- who is here --------------------------------------------------------------------------------

    def of(self, namespace: str) -> Connections:
        """The connections to a namespace are among these."""
        return self

    def __iter__(self) -> Iterator[Connection]:
        """All connections of this node."""
        for namespaces in self._by_transport.values():
            yield from namespaces.values()

    def __bool__(self) -> bool:
        return bool(self._by_transport)

    def by_sid(self, namespace: str, sid: str | None) -> Connection | None:
        """The newest connection with a ``sid``."""
        return self._by_sid.get(namespace, {}).get(sid) if sid is not None else None

    def by_transport(self, transport: str) -> dict[str, Connection]:
        """The connections of one transport, by namespace."""
        return self._by_transport.get(transport, {})

    def namespaces(self) -> set[str]:
        """The namespaces that have connections on this node."""
        return set(self._by_sid)

    # -- how far clients have received --------------------------------------------------------------

    def pinged(self, transport: str) -> None:
        """A ping is about to be queued, behind everything that was sent so far."""
        position = self.partition.position
        for connection in self.by_transport(transport).values():
            if connection.epoch == position.epoch and connection.flow is not Flow.MUTED:
                upto = position.n if connection.flow is Flow.LIVE else connection.after
                connection.pinged = (upto, connection.sent)

    def ponged(self, transport: str) -> None:
        """The last ping was answered: everything that was sent before it has arrived."""
        for connection in self.by_transport(transport).values():
            connection.confirmed = connection.pinged


class AllConnections:
    """The connections of this node, whichever partition they follow.

    :param parts: the connections of each partition.
    :param number: says which partition a namespace belongs to.
    """

    def __init__(self, parts: Sequence[Connections], number: Callable[[str], int]) -> None:
        self._parts = parts
        self._number = number

    def of(self, namespace: str) -> Connections:
        """The connections of the partition that a namespace belongs to."""
        return self._parts[self._number(namespace)]

    def __iter__(self) -> Iterator[Connection]:
        """All connections of this node."""
        for part in self._parts:
            yield from part

    def __bool__(self) -> bool:
        return any(self._parts)

    def by_sid(self, namespace: str, sid: str | None) -> Connection | None:
        """The newest connection with a ``sid``."""
        return self.of(namespace).by_sid(namespace, sid)

    def by_transport(self, transport: str) -> dict[str, Connection]:
        """The connections of one transport, by namespace."""
        found: dict[str, Connection] = {}
        for part in self._parts:  # each is copied in one step: threads may ask
            found.update(part.by_transport(transport))
        return found

    def namespaces(self) -> set[str]:
        """The namespaces that have connections on this node."""
        return {namespace for part in self._parts for namespace in part.namespaces()}

    def when_removed(self, done: Callable[[], None]) -> None:
        """Calls ``done`` after the next connection is removed, perhaps more than once."""
        for part in self._parts:
            part.when_removed(done)

    def pinged(self, transport: str) -> None:
        """A ping is about to be queued, behind everything that was sent so far."""
        for part in self._parts:
            part.pinged(transport)

    def ponged(self, transport: str) -> None:
        """The last ping was answered: everything that was sent before it has arrived."""
        for part in self._parts:
            part.ponged(transport)


#: The connections of this node, with one partition or with several.
NodeConnections = Connections | AllConnections

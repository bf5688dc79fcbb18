"""The chat's events: those that clients send, and those that they receive.

The server answers a client's event by an acknowledgement.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import socketio
from prometheus_client import CollectorRegistry
from socketio_recovery import AsyncRedisStreamsManager, RedisUnavailable
from socketio_recovery.prometheus import PrometheusMetrics

from . import rules
from .cluster import ClusterView
from .journal import Journal
from .people import People
from .rules import (
    LOBBY,
    MAX_NAME,
    MAX_ROOM,
    MAX_ROOMS,
    MAX_TEXT,
    PREFIX,
    Introduction,
    RateLimiter,
    RequestRefused,
    chat_rooms,
    clean,
    room_name,
)
from .settings import ChatSettings
from .store import UNAVAILABLE, ChatStore, RoomHistory

#: The name of the cluster, which all its nodes share.
CHANNEL = "chat"


class Chat:
    """One node of the chat: a Socket.IO server with the handlers of its events.

    The data of a Socket.IO session are described at the top of :mod:`chat.people`.
    """

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings
        self.journal = Journal(settings.name)
        self.store = ChatStore(settings.redis_url, CHANNEL)
        #: What ``/metrics`` shows.
        self.registry = CollectorRegistry()
        self.manager = AsyncRedisStreamsManager(
            settings.redis_url,
            channel=CHANNEL,
            logger=logging.getLogger("socketio_recovery"),
            max_disconnection_duration=settings.recover_within,
            metrics=PrometheusMetrics(self.registry),
            heartbeat_interval=settings.session_heartbeat,
        )
        self.sio = socketio.AsyncServer(async_mode="aiohttp", client_manager=self.manager, max_http_buffer_size=100_000)
        self.people = People(self.manager, self._show_people)
        self.cluster = ClusterView(settings, self.store, self.manager, self.journal, self.people)
        #: Of the clients that are connected to this node, by the ids of their connections.
        self._rate_limiters: dict[str | None, RateLimiter] = {}
        self.sio.on("connect", self.connect)
        self.sio.on("disconnect", self.disconnect)
        for handler in (self.say, self.join, self.leave, self.rename, self.typing):
            self.sio.on(handler.__name__, self._answering(handler))
        if settings.demo:
            self.sio.on("kill", self.kill)

    # -- what all events share ----------------------------------------------------------------------

    def _answering(self, handler: Callable[[str, dict[str, Any]], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Wraps the handler of an event, which gets one ``dict`` whatever the client sent.

        The wrapper answers if the client sends too much, if the handler refuses what it sent, and if Redis does not
        answer. Such an answer has ``error`` (a code), ``text`` (a sentence), and ``retry`` (after how many ms to try
        again) if that makes sense.
        """

        async def handle(sid: str, asked: object = None, *_: object) -> Any:
            limiter = self._rate_limiters.get(self.manager.eio_sid_from_sid(sid, "/"))
            if limiter is not None and (wait := limiter.take(time.monotonic())):
                return {"error": "fast", "text": "too much at once", "retry": round(wait * 1000) + 1}
            try:
                return await handler(sid, asked if isinstance(asked, dict) else {})
            except RequestRefused as refused:
                return refused.answer()
            except UNAVAILABLE:
                return {"error": "unavailable", "text": "Redis does not answer", "retry": 1000}

        return handle

    # -- starting and stopping ----------------------------------------------------------------------

    async def start(self) -> None:
        """Connects to Redis and starts the heartbeats. If Redis does not answer, the node waits for it."""
        self.journal("node.started", port=self.settings.port, demo=int(self.settings.demo))
        try:
            await self.manager.start()
        except RedisUnavailable as error:
            self.journal("node.waiting", logging.WARNING, why=error)
        self.cluster.start()

    async def stop(self) -> None:
        """Stops the node in order: its clients go to other nodes, and what they said is stored."""
        self.journal("node.draining", clients=len(self._rate_limiters))
        self.cluster.state = "draining"
        await self.manager.drain(over=self.settings.drain_over)
        await self.cluster.stop()
        await self.manager.close()
        await self.store.close()
        self.journal("node.stopped")

    async def _show_people(self, people: list[dict[str, Any]]) -> None:
        # Not through the log: each node works out the list for its own clients, and the next list replaces this one.
        await self.sio.emit("people", people, ignore_queue=True)

    # -- coming and going ---------------------------------------------------------------------------

    def rooms(self, sid: str) -> list[str]:
        """Returns the chat's rooms that a client of this node is in, sorted by name."""
        return chat_rooms(self.sio.rooms(sid))

    async def connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        """Welcomes a client. Unless its session was recovered, the client introduces itself and enters its rooms."""
        conn = self.manager.eio_sid_from_sid(sid, "/")
        assert conn is not None
        recovered = self.manager.recovered(sid)
        rooms: dict[str, int] = {}  # to enter
        try:
            if recovered:
                session = await self.sio.get_session(sid)
                came_from = session.get("node")
            else:
                said = Introduction(auth, sid)
                session, rooms = {"id": said.id, "name": said.name}, said.rooms
                came_from = self.people.node_of(said.id)
            await self.sio.save_session(sid, {**session, "node": self.settings.name})
            await asyncio.gather(*(self.sio.enter_room(sid, PREFIX + room) for room in rooms))
            # Read the histories after entering the rooms: whatever is said from now on comes as an event as well.
            histories = await self.store.history(rooms)
            self._rate_limiters[conn] = RateLimiter(self.settings.message_rate, time.monotonic())
            reason = self.manager.recovery_reason(sid)
            if recovered or reason != "new":
                await self._news(session["name"], came_from, "recovered" if recovered else str(reason))
        except UNAVAILABLE as error:
            raise RedisUnavailable(str(error)) from None  # closes the transport, so that the client tries again
        self.cluster.people_changed()
        self.journal("session.recovered" if recovered else "session.new", sid=sid, name=session["name"], reason=reason)
        # Not through the log, but in its order: the client gets everything it missed before the welcome, and everything
        # new after it.
        welcome = {
            "node": self.settings.name,
            "id": session["id"],
            "name": session["name"],
            "recovered": recovered,
            "reason": reason,
            "rooms": self.rooms(sid),
            "histories": {room: shown(history) for room, history in histories.items()},
            "people": self.people.shown,
            "nodes": sorted(self.cluster.last_reply.nodes)
            if self.cluster.last_reply is not None
            else [self.settings.name],
            "now": round(time.time() * 1000),
            "demo": self.settings.demo,
            "within": self.settings.recover_within,
            "limits": {"text": MAX_TEXT, "name": MAX_NAME, "room": MAX_ROOM, "rooms": MAX_ROOMS},
        }
        await self.sio.emit("welcome", welcome, to=sid, ignore_queue=True)

    async def _news(self, name: str, came_from: str | None, outcome: str) -> None:
        """Adds a line to the news on the cluster's page: a client has come back.

        :param name: the person's name.
        :param came_from: the node that the client was on before, if that is known.
        :param outcome: "recovered", or the reason for a new session.
        """
        await self.store.add_news(
            {
                "at": round(time.time() * 1000),
                "name": name,
                "from": came_from,
                "to": self.settings.name,
                "outcome": outcome,
            }
        )

    async def disconnect(self, sid: str, reason: str) -> None:
        """Forgets a client that left this node. The library knows whether it may come back."""
        conn = self.manager.eio_sid_from_sid(sid, "/")
        if self._rate_limiters.pop(conn, None) is None:
            self.journal("session.ended", sid=sid, reason=reason)  # the client was not connected to this node
            return
        left = reason in (self.sio.reason.CLIENT_DISCONNECT, self.sio.reason.SERVER_DISCONNECT)
        self.journal("session.left" if left else "session.lost", sid=sid, reason=reason)

    async def kill(self, sid: str, *_: object) -> None:
        """Kills this node. This handler exists only with ``DEMO=1``."""
        self.cluster.kill("a page")

    # -- talking ------------------------------------------------------------------------------------

    def _room(self, sid: str, value: object) -> str:
        """Returns the valid name of a room that the client named.

        :raises RequestRefused: if the client is not in that room.
        """
        room = room_name(value)
        if room not in self.rooms(sid):
            raise RequestRefused("outside", "you are not in that room")
        return room

    async def say(self, sid: str, asked: dict[str, Any]) -> dict[str, Any]:
        """``{id, room, text}``: sends a message to a room. The answer has the message's number in the room, ``seq``.

        A client that got no answer sends the message again with the same ``id``. It is stored only once.
        """
        session = await self.sio.get_session(sid)
        room = self._room(sid, asked.get("room"))
        id = rules.own_id(asked.get("id"), "id")
        text = clean(asked.get("text"), "message", MAX_TEXT)
        author = session["id"]
        fresh = {"id": f"{author}-{id}", "room": room, "from": author, "name": session["name"], "text": text}
        message, told = await self.store.add_message(author, id, room, fresh)
        if not told:
            # If this node dies after the emit and before the note, the author sends the message again, and everybody
            # gets it twice. The pages recognise it by its id and show it once.
            self.cluster.event_rate.count()
            await self.sio.emit("message", message, to=PREFIX + message["room"])
            await self.store.mark_told(author, id)
        return {"seq": message["seq"], "at": message["at"], "id": message["id"]}

    async def typing(self, sid: str, asked: dict[str, Any]) -> None:
        """``{room}``: tells the room that the client is typing. The event is volatile, so it is never replayed."""
        session = await self.sio.get_session(sid)
        room = self._room(sid, asked.get("room"))
        typist = {"id": session["id"], "name": session["name"], "room": room}
        self.cluster.event_rate.count()
        await self.sio.emit("typing", typist, to=PREFIX + room, skip_sid=sid, volatile=True)

    async def join(self, sid: str, asked: dict[str, Any]) -> dict[str, Any]:
        """``{room, seen}``: enters a room. The answer has the room's recent messages after number ``seen``."""
        room = room_name(asked.get("room"))
        rooms = self.rooms(sid)
        if room not in rooms:
            if len(rooms) >= MAX_ROOMS:
                raise RequestRefused("rooms", f"you are in {MAX_ROOMS} rooms already")
            await self.sio.enter_room(sid, PREFIX + room)
            self.journal("room.joined", sid=sid, room=room)
            self.cluster.people_changed()
        return {
            "room": room,
            "history": shown((await self.store.history({room: rules.number(asked.get("seen"))}))[room]),
        }

    async def leave(self, sid: str, asked: dict[str, Any]) -> dict[str, Any]:
        """``{room}``: leaves a room. Nobody can leave the lobby."""
        room = self._room(sid, asked.get("room"))
        if room == LOBBY:
            raise RequestRefused("lobby", "nobody leaves the lobby")
        await self.sio.leave_room(sid, PREFIX + room)
        self.journal("room.left", sid=sid, room=room)
        self.cluster.people_changed()
        return {"room": room}

    async def rename(self, sid: str, asked: dict[str, Any]) -> dict[str, Any]:
        """``{name}``: changes the person's name. Earlier messages keep the old name."""
        name = clean(asked.get("name"), "name", MAX_NAME)
        session = await self.sio.get_session(sid)
        if name != session["name"]:
            await self.sio.save_session(sid, {**session, "name": name})
            self.journal("session.renamed", sid=sid, name=name)
            self.cluster.people_changed()
        return {"name": name}


def shown(history: RoomHistory) -> dict[str, Any]:
    """A room's history as clients get it."""
    return {"first": history.first, "last": history.last, "messages": history.messages}

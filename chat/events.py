"""The chat's events: what clients send, and what they get. Answers to clients are acknowledgements."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import socketio
from socketio_recovery import AsyncRedisStreamsManager, RedisUnavailable

from . import rules
from .cluster import ClusterView
from .journal import Journal
from .measurements import LogLag
from .rules import (
    LOBBY,
    MAX_NAME,
    MAX_ROOM,
    MAX_ROOMS,
    MAX_TEXT,
    Introduction,
    RateLimiter,
    RequestRefused,
    clean,
    room_name,
)
from .settings import Settings
from .store import UNAVAILABLE, ChatStore, RoomHistory

CHANNEL = "chat"
#: Rooms of the chat have names of their own among the server's rooms.
PREFIX = "#"


class Chat:
    """The server side of the page. A session's data is ``{"id", "name"}``; its rooms are the chat's rooms."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.journal = Journal(settings.name)
        self.store = ChatStore(settings.redis_url, CHANNEL)
        self.manager = AsyncRedisStreamsManager(
            settings.redis_url,
            channel=CHANNEL,
            logger=logging.getLogger("socketio_recovery"),
            max_disconnection_duration=settings.recover_within,
        )
        self.sio = socketio.AsyncServer(async_mode="aiohttp", client_manager=self.manager, max_http_buffer_size=100_000)
        self.cluster = ClusterView(
            settings, self.store, self.manager, self.journal, self._show_people, LogLag(self._probe)
        )
        self._rate_limiters: dict[str | None, RateLimiter] = {}
        self.sio.on("connect", self.connect)
        self.sio.on("disconnect", self.disconnect)
        for handler in (self.say, self.join, self.leave, self.rename, self.typing):
            self.sio.on(handler.__name__, self._answering(handler))
        if settings.demo:
            self.sio.on("kill", self.kill)

    # -- what all events share ----------------------------------------------------------------------

    def _answering(self, handler: Callable[[str, dict[str, Any]], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """A handler of one object, whatever the client sent, however often; what goes wrong is the answer."""

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
        self.journal("node.started", port=self.settings.port, demo=int(self.settings.demo))
        try:
            await self.manager.start()
        except RedisUnavailable as error:
            self.journal("node.waiting", logging.WARNING, why=error)
        self.cluster.start()

    async def stop(self) -> None:
        """An orderly end: clients go elsewhere, what they said is stored."""
        self.journal("node.draining", clients=len(self.cluster.here))
        self.cluster.state = "draining"
        await self.manager.drain(over=self.settings.drain_over)
        await self.cluster.stop()
        await self.manager.close()
        await self.store.close()
        self.journal("node.stopped")

    async def _show_people(self, people: list[dict[str, Any]]) -> None:
        # Past the log: each node works this out, and what is shown next replaces it.
        await self.sio.emit("people", people, ignore_queue=True)

    async def _probe(self) -> None:
        await self.manager.emit("probe", None, room="probe " + self.cluster.boot, volatile=True)

    # -- coming and going ---------------------------------------------------------------------------

    def rooms(self, sid: str) -> list[str]:
        """The chat's rooms that a client of this node is in."""
        return sorted(room[len(PREFIX) :] for room in self.sio.rooms(sid) if str(room).startswith(PREFIX))

    async def connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        conn = self.manager.eio_sid_from_sid(sid, "/")
        assert conn is not None
        recovered = self.manager.recovered(sid)
        histories: dict[str, RoomHistory] = {}
        try:
            if recovered:
                session = await self.sio.get_session(sid)
            else:
                said = Introduction(auth, sid)
                session = {"id": said.id, "name": said.name}
                await self.sio.save_session(sid, session)
                await asyncio.gather(*(self.sio.enter_room(sid, PREFIX + room) for room in said.rooms))
                # After entering: what is said from now on comes as an event.
                histories = await self.store.history(said.rooms)
            rooms = self.rooms(sid)
            record = {
                "name": session["name"],
                "node": self.settings.name,
                "boot": self.cluster.boot,
                "conn": conn,
                "rooms": rooms,
                "lost": 0,
            }
            before = await self.store.put_person(session["id"], record)
            self.cluster.here[conn] = session["id"]
            self._rate_limiters[conn] = RateLimiter(self.settings.message_rate, time.monotonic())
            reason = self.manager.recovery_reason(sid)
            if recovered or reason != "new":
                await self._news(session["name"], before, "recovered" if recovered else str(reason))
        except UNAVAILABLE as error:
            raise RedisUnavailable(str(error)) from None  # the transport is closed, the client tries again
        self.cluster.wake()
        self.journal("session.recovered" if recovered else "session.new", sid=sid, name=session["name"], reason=reason)
        # Past the log, but in its order: all that was missed comes before it, all that is new after it.
        welcome = {
            "node": self.settings.name,
            "id": session["id"],
            "name": session["name"],
            "recovered": recovered,
            "reason": reason,
            "rooms": rooms,
            "histories": {room: shown(history) for room, history in histories.items()},
            "people": self.cluster.people,
            "nodes": sorted(self.cluster.last_reply.nodes)
            if self.cluster.last_reply is not None
            else [self.settings.name],
            "now": round(time.time() * 1000),
            "demo": self.settings.demo,
            "within": self.settings.recover_within,
            "limits": {"text": MAX_TEXT, "name": MAX_NAME, "room": MAX_ROOM, "rooms": MAX_ROOMS},
        }
        await self.sio.emit("welcome", welcome, to=sid, ignore_queue=True)

    async def _news(self, name: str, before: dict[str, Any] | None, outcome: str) -> None:
        await self.store.add_news(
            {
                "at": round(time.time() * 1000),
                "name": name,
                "from": before["node"] if before else None,
                "to": self.settings.name,
                "outcome": outcome,
            }
        )

    async def disconnect(self, sid: str, reason: str) -> None:
        conn = self.manager.eio_sid_from_sid(sid, "/")
        if conn is None or conn not in self.cluster.here:
            self.journal("session.ended", sid=sid, reason=reason)  # it was no client of this node
            return
        id = self.cluster.here.pop(conn)
        self._rate_limiters.pop(conn, None)
        left = reason in (self.sio.reason.CLIENT_DISCONNECT, self.sio.reason.SERVER_DISCONNECT)
        self.journal("session.left" if left else "session.lost", sid=sid, reason=reason)
        try:
            await (self.store.remove_person if left else self.store.mark_lost)(id, conn)
        except UNAVAILABLE as error:  # the next look finds it
            self.journal("person.unwritten", logging.WARNING, sid=sid, error=error)
        self.cluster.wake()

    async def kill(self, sid: str, *_: object) -> None:
        """Only where ``DEMO=1``."""
        self.cluster.kill("a page")

    # -- talking ------------------------------------------------------------------------------------

    def _room(self, sid: str, value: object) -> str:
        """:raises RequestRefused: if it is no room of the client's."""
        room = room_name(value)
        if room not in self.rooms(sid):
            raise RequestRefused("outside", "you are not in that room")
        return room

    async def say(self, sid: str, asked: dict[str, Any]) -> dict[str, Any]:
        """``{id, room, text}``: a message to a room. The answer has its number in the room.

        A client that got no answer asks again with the same ``id``: the message is taken once.
        """
        session = await self.sio.get_session(sid)
        room = self._room(sid, asked.get("room"))
        id = rules.own_id(asked.get("id"), "id")
        text = clean(asked.get("text"), "message", MAX_TEXT)
        author = session["id"]
        fresh = {"id": f"{author}-{id}", "room": room, "from": author, "name": session["name"], "text": text}
        message, told = await self.store.add_message(author, id, room, fresh)
        if not told:
            # If this node dies before it has noted that everybody was told, the author asks again, and everybody
            # is told again: pages know a message by its id.
            self.cluster.event_rate.count()
            await self.sio.emit("message", message, to=PREFIX + message["room"])
            await self.store.mark_told(author, id)
        return {"seq": message["seq"], "at": message["at"], "id": message["id"]}

    async def typing(self, sid: str, asked: dict[str, Any]) -> None:
        """``{room}``: somebody writes. Not worth keeping: never replayed."""
        session = await self.sio.get_session(sid)
        room = self._room(sid, asked.get("room"))
        typist = {"id": session["id"], "name": session["name"], "room": room}
        self.cluster.event_rate.count()
        await self.sio.emit("typing", typist, to=PREFIX + room, skip_sid=sid, volatile=True)

    async def join(self, sid: str, asked: dict[str, Any]) -> dict[str, Any]:
        """``{room, seen}``: enters a room. The answer is what was said there lately, after number ``seen``."""
        room = room_name(asked.get("room"))
        rooms = self.rooms(sid)
        if room not in rooms:
            if len(rooms) >= MAX_ROOMS:
                raise RequestRefused("rooms", f"you are in {MAX_ROOMS} rooms already")
            await self.sio.enter_room(sid, PREFIX + room)
            self.journal("room.joined", sid=sid, room=room)
            await self._changed(sid, rooms=self.rooms(sid))
        return {
            "room": room,
            "history": shown((await self.store.history({room: rules.number(asked.get("seen"))}))[room]),
        }

    async def leave(self, sid: str, asked: dict[str, Any]) -> dict[str, Any]:
        """``{room}``: leaves a room, but the lobby."""
        room = self._room(sid, asked.get("room"))
        if room == LOBBY:
            raise RequestRefused("lobby", "nobody leaves the lobby")
        await self.sio.leave_room(sid, PREFIX + room)
        self.journal("room.left", sid=sid, room=room)
        await self._changed(sid, rooms=self.rooms(sid))
        return {"room": room}

    async def rename(self, sid: str, asked: dict[str, Any]) -> dict[str, Any]:
        """``{name}``: the name of what the client says from now on."""
        name = clean(asked.get("name"), "name", MAX_NAME)
        session = await self.sio.get_session(sid)
        if name != session["name"]:
            await self.sio.save_session(sid, {**session, "name": name})
            self.journal("session.renamed", sid=sid, name=name)
            await self._changed(sid, name=name)
        return {"name": name}

    async def _changed(self, sid: str, **fields: Any) -> None:
        conn = self.manager.eio_sid_from_sid(sid, "/")
        if conn in self.cluster.here:
            await self.store.change_person(self.cluster.here[conn], conn, **fields)
            self.cluster.wake()


def shown(history: RoomHistory) -> dict[str, Any]:
    return {"first": history.first, "last": history.last, "messages": history.messages}

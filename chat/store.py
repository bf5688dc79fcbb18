"""What the nodes share in Redis beside the log: messages, people, nodes. Thin: the scripts are in ``lua/``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError
from socketio_recovery import PublishTimeout, RedisUnavailable

from .rules import RequestRefused

#: Recent messages that are kept of a room, and for how long after its last one, in seconds.
HISTORY = 100
HISTORY_FOR = 86400
#: Rooms with messages, at most.
ALL_ROOMS = 500
#: Lines of news on the cluster's page.
NEWS = 30
#: How long an order to kill a node stands, in seconds.
ORDER_FOR = 5

#: The exceptions of this module, and of the client manager, that mean that Redis does not answer.
UNAVAILABLE = (RedisError, OSError, PublishTimeout, RedisUnavailable)

LUA = Path(__file__).parent / "lua"


@dataclass
class RoomHistory:
    """What is kept of a room.

    :ivar first: the number of the room's first message; since then none was left out.
    :ivar last: the number of its last one; 0 if nobody has said anything.
    :ivar messages: the recent ones.
    """

    first: int
    last: int
    messages: list[dict[str, Any]]


@dataclass
class HeartbeatReply:
    """What a node learns with each of its beats. Times are in milliseconds, Redis's."""

    now: int
    version: str
    nodes: dict[str, dict[str, Any]]
    outcomes: dict[str, int]
    kill: bool


class ChatStore:
    """:param url: of Redis.
    :param channel: the cluster's name; keys begin with ``{channel}:app:``.

    Every method raises :exc:`redis.RedisError` or :exc:`OSError` if Redis does not answer within seconds.
    """

    def __init__(self, url: str, channel: str) -> None:
        self._redis: Redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url, decode_responses=True, max_connections=16, timeout=3, socket_timeout=3, socket_connect_timeout=3
            )
        )
        self._prefix = f"{{{channel}}}:app:"
        self._say, self._person, self._heartbeat = (
            self._redis.register_script((LUA / f"{name}.lua").read_text()) for name in ("say", "person", "heartbeat")
        )

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    async def _call(self, *command: object) -> Any:
        return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    # -- messages -----------------------------------------------------------------------------------

    async def add_message(
        self, author: str, id: str, room: str, message: Mapping[str, Any]
    ) -> tuple[dict[str, Any], bool]:
        """Takes a message into its room's history; one that was taken before, with this id, only once.

        :param message: what to store; ``seq`` (its number in the room) and ``at`` (ms) are added.
        :returns: the message as it was taken first, and whether everybody was told of it.
        :raises RequestRefused: if there are too many rooms.
        """
        stored, told = await self._say(
            keys=[
                self._key("said", author, id),
                self._key("room", room),
                self._key("history", room),
                self._key("rooms"),
            ],
            args=[json.dumps(message)[1:], HISTORY, HISTORY_FOR, room, ALL_ROOMS],
        )
        if told == "rooms":
            raise RequestRefused("rooms", "there are too many rooms; use one that there is")
        found: dict[str, Any] = json.loads(stored)
        return found, bool(told)

    async def mark_told(self, author: str, id: str) -> None:
        """Everybody was told of a message."""
        await self._call("HSET", self._key("said", author, id), "told", "1")

    async def history(self, rooms: Mapping[str, int]) -> dict[str, RoomHistory]:
        """What is kept of rooms.

        :param rooms: room -> the number of the last message that is not needed.
        """
        pipe = self._redis.pipeline(transaction=True)
        for room in rooms:
            pipe.hmget(self._key("room", room), "first", "last")
            pipe.lrange(self._key("history", room), 0, -1)
        answers = await pipe.execute()
        found = {}
        for i, (room, seen) in enumerate(rooms.items()):
            (first, last), stored = answers[2 * i], answers[2 * i + 1]
            messages = [message for line in stored if (message := json.loads(line))["seq"] > seen]
            found[room] = RoomHistory(int(first or 0), int(last or 0), messages)
        return found

    # -- people -------------------------------------------------------------------------------------

    async def put_person(self, id: str, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """Writes a person's record down.

        :returns: the one there was.
        """
        _, before = await self._change(id, "put", record["conn"], record)
        return json.loads(before) if before else None

    async def change_person(self, id: str, conn: str, **fields: Any) -> bool:
        """Changes fields of a person's record, if it is still that of the connection ``conn``."""
        return bool((await self._change(id, "change", conn, fields))[0])

    async def mark_lost(self, id: str, conn: str) -> bool:
        """A person's connection ``conn`` was lost: from now on it is waited for."""
        return bool((await self._change(id, "lost", conn))[0])

    async def remove_person(self, id: str, conn: str) -> bool:
        """A person left, or did not come back; unless there is another connection than ``conn`` by now."""
        return bool((await self._change(id, "gone", conn))[0])

    async def _change(self, id: str, what: str, conn: str, fields: Mapping[str, Any] | None = None) -> tuple[int, str]:
        keys = [self._key("people"), self._key("version")]
        changed, before = await self._person(keys=keys, args=[id, what, conn, json.dumps(fields or {})])
        return changed, before

    async def people(self) -> dict[str, dict[str, Any]]:
        """The records of all people; see :func:`chat.presence.presence_of`."""
        found = await self._call("HGETALL", self._key("people"))
        return {id: json.loads(record) for id, record in found.items()}

    # -- nodes --------------------------------------------------------------------------------------

    async def heartbeat(self, name: str, record: Mapping[str, Any], outcomes: Mapping[str, int]) -> HeartbeatReply:
        """Tells how this node is; learns how the others are."""
        keys = [self._key("nodes"), self._key("version"), self._key("outcomes"), self._key("kill", name)]
        now, version, nodes, all_outcomes, kill = await self._heartbeat(
            keys=keys, args=[name, json.dumps(record), json.dumps(outcomes)]
        )
        return HeartbeatReply(
            int(now),
            version,
            {node: json.loads(text) for node, text in _pairs(nodes)},
            {outcome: int(times) for outcome, times in _pairs(all_outcomes)},
            bool(kill),
        )

    async def forget_nodes(self, names: Iterable[str]) -> None:
        await self._call("HDEL", self._key("nodes"), *names)

    async def order_kill(self, name: str) -> None:
        """The node is to kill itself at its next beat."""
        await self._call("SET", self._key("kill", name), "1", "EX", ORDER_FOR)

    async def add_news(self, news: Mapping[str, Any]) -> None:
        """A line for the cluster's page."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.lpush(self._key("news"), json.dumps(news))
        pipe.ltrim(self._key("news"), 0, NEWS - 1)
        await pipe.execute()

    async def news(self) -> list[dict[str, Any]]:
        """The lines for the cluster's page, the newest first."""
        found = await self._call("LRANGE", self._key("news"), 0, -1)
        return [json.loads(line) for line in found]


def _pairs(flat: list[str]) -> Iterable[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)

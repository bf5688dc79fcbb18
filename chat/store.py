"""What the nodes share in Redis beside the log: messages, the nodes' heartbeats, news.

This is a thin layer; the scripts that run in Redis are in ``lua/``.
"""

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

#: How many recent messages of each room are kept.
HISTORY = 100
#: How long they are kept after the room's last message, in seconds.
HISTORY_FOR = 86400
#: The most rooms that can have messages at the same time.
ALL_ROOMS = 500
#: How many lines of news are kept for the cluster's page.
NEWS = 30
#: How long an order to kill a node is valid, in seconds.
ORDER_FOR = 5

#: The exceptions of this module, and of the client manager, that mean that Redis does not answer.
UNAVAILABLE = (RedisError, OSError, PublishTimeout, RedisUnavailable)

LUA = Path(__file__).parent / "lua"


@dataclass
class RoomHistory:
    """What Redis keeps of a room's messages. They are numbered without gaps from ``first`` to ``last``.

    :ivar first: the number of the room's first message; 0 if there is none.
    :ivar last: the number of its last message; 0 if there is none.
    :ivar messages: the recent messages, the oldest first.
    """

    first: int
    last: int
    messages: list[dict[str, Any]]


@dataclass
class HeartbeatReply:
    """What a node learns from Redis with each of its heartbeats.

    :ivar now: Redis's time, in milliseconds.
    :ivar nodes: the name of each node -> its record; ``at`` is the time of its last heartbeat, in ms.
    :ivar outcomes: how often connecting had each outcome, on all nodes together.
    :ivar kill: whether somebody ordered this node to kill itself.
    """

    now: int
    nodes: dict[str, dict[str, Any]]
    outcomes: dict[str, int]
    kill: bool


class ChatStore:
    """The chat's data in Redis.

    Every method raises :exc:`redis.RedisError` or :exc:`OSError` if Redis does not answer within a few seconds.

    :param url: the URL of Redis.
    :param channel: the cluster's name; all keys begin with ``{channel}:app:``.
    """

    def __init__(self, url: str, channel: str) -> None:
        self._redis: Redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url, decode_responses=True, max_connections=16, timeout=3, socket_timeout=3, socket_connect_timeout=3
            )
        )
        self._prefix = f"{{{channel}}}:app:"
        self._say, self._heartbeat = (
            self._redis.register_script((LUA / f"{name}.lua").read_text()) for name in ("say", "heartbeat")
        )

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    async def _call(self, *command: object) -> Any:
        return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Closes all connections to Redis."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    # -- messages -----------------------------------------------------------------------------------

    async def add_message(
        self, author: str, id: str, room: str, message: Mapping[str, Any]
    ) -> tuple[dict[str, Any], bool]:
        """Adds a message to its room's history, unless it was added before.

        :param author: the id of the person who said it.
        :param id: the author's own id of the message. A second message with the same id is not added.
        :param room: the room's name.
        :param message: what to store. ``seq`` (its number in the room) and ``at`` (the time, in ms) are added to it.
        :returns: the message as it was stored the first time, and whether :meth:`mark_told` was called for it.
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
        """Notes that a message was sent to everybody in its room.

        :param author: the id of the person who said it.
        :param id: the author's own id of the message.
        """
        await self._call("HSET", self._key("said", author, id), "told", "1")

    async def history(self, rooms: Mapping[str, int]) -> dict[str, RoomHistory]:
        """Reads what is kept of some rooms.

        :param rooms: room -> the number of the last message that the client has; only later ones are returned.
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

    # -- nodes --------------------------------------------------------------------------------------

    async def heartbeat(self, name: str, record: Mapping[str, Any], outcomes: Mapping[str, int]) -> HeartbeatReply:
        """Stores how this node is, and returns how the other nodes are.

        :param name: the name of this node.
        :param record: how it is; ``at`` (Redis's time, in ms) is added to it.
        :param outcomes: how often connecting to this node had each outcome since its last heartbeat.
        """
        keys = [self._key("nodes"), self._key("outcomes"), self._key("kill", name)]
        now, nodes, all_outcomes, kill = await self._heartbeat(
            keys=keys, args=[name, json.dumps(record), json.dumps(outcomes)]
        )
        return HeartbeatReply(
            int(now),
            {node: json.loads(text) for node, text in _pairs(nodes)},
            {outcome: int(times) for outcome, times in _pairs(all_outcomes)},
            bool(kill),
        )

    async def forget_nodes(self, names: Iterable[str]) -> None:
        """Removes the records of some nodes."""
        await self._call("HDEL", self._key("nodes"), *names)

    async def order_kill(self, name: str) -> None:
        """Orders a node to kill itself at its next heartbeat. The order expires after :data:`ORDER_FOR` seconds."""
        await self._call("SET", self._key("kill", name), "1", "EX", ORDER_FOR)

    async def add_news(self, news: Mapping[str, Any]) -> None:
        """Adds a line of news for the cluster's page, and removes the oldest if there are too many."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.lpush(self._key("news"), json.dumps(news))
        pipe.ltrim(self._key("news"), 0, NEWS - 1)
        await pipe.execute()

    async def news(self) -> list[dict[str, Any]]:
        """Returns the lines of news for the cluster's page, the newest first."""
        found = await self._call("LRANGE", self._key("news"), 0, -1)
        return [json.loads(line) for line in found]


def _pairs(flat: list[str]) -> Iterable[tuple[str, str]]:
    """The fields and values of a hash, from the flat list that a script returns."""
    return zip(flat[::2], flat[1::2], strict=True)

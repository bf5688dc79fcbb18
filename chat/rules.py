"""What clients may send (no I/O). Errors are for the client: one code and one sentence."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

MAX_TEXT = 1000  # characters
MAX_NAME = 40
MAX_ROOM = 30
#: Rooms that one client may be in.
MAX_ROOMS = 12
#: The room that everybody is in, always.
LOBBY = "lobby"
#: A client's own ids, of itself and of its messages: random, so that nobody else has them.
_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


class RequestRefused(Exception):
    """What a client sent is not taken.

    :param code: for the page, which has the words for it.
    :param text: for a reader.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code

    def answer(self) -> dict[str, Any]:
        return {"error": self.code, "text": str(self)}


def clean(value: object, what: str, most: int) -> str:
    """What a client sent as a text: one line, not empty, not too long.

    :raises RequestRefused: if it is something else.
    """
    if not isinstance(value, str):
        raise RequestRefused("invalid", f"the {what} must be a text")
    text = " ".join(value.encode("utf-8", "replace").decode().split())
    if not text:
        raise RequestRefused("empty", f"the {what} is empty")
    if len(text) > most:
        raise RequestRefused("long", f"the {what} is longer than {most} characters")
    return text


def room_name(value: object) -> str:
    """A room's name: letters and digits of any script, hyphens, underscores; lower case.

    :raises RequestRefused: if it is something else.
    """
    name = unicodedata.normalize("NFKC", clean(value, "room", MAX_ROOM)).lower().replace(" ", "-")
    # combining marks too: many scripts spell their letters with them
    if not all(c in "-_" or unicodedata.category(c)[0] in "LNM" for c in name) or len(name) > MAX_ROOM:
        raise RequestRefused("room", "a room's name has letters, digits, hyphens and underscores")
    return name


def own_id(value: object, what: str) -> str:
    """An id that the client made.

    :raises RequestRefused: if it is something else.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise RequestRefused("invalid", f"the {what} must be 8 to 64 letters, digits or hyphens")
    return value


def public_id(client: str) -> str:
    """What others see of a client's own id: they can't tell the id from it."""
    return hashlib.sha256(client.encode()).hexdigest()[:16]


class Introduction:
    """What a client says of itself as it connects. What is not right is left out: it is let in all the same.

    :param auth: hostile.
    :param sid: for the name of a guest, and for the id of a client that has none.
    """

    def __init__(self, auth: object, sid: str) -> None:
        said = auth if isinstance(auth, dict) else {}
        try:
            self.name = clean(said.get("name"), "name", MAX_NAME)
        except RequestRefused:
            self.name = f"Guest {sid[:4]}"
        try:
            self.id = public_id(own_id(said.get("client"), "client"))
        except RequestRefused:
            self.id = public_id(sid)
        #: The rooms it was in, and the last message it has of each.
        self.rooms: dict[str, int] = {LOBBY: 0}
        rooms = said.get("rooms")
        for room, seen in list(rooms.items())[:MAX_ROOMS] if isinstance(rooms, dict) else ():
            try:
                self.rooms[room_name(room)] = number(seen)
            except RequestRefused:
                continue


def number(value: object) -> int:
    """The number of a message that a client has seen; 0 for none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0


class RateLimiter:
    """How many messages a client may send: ``rate`` per second on average, and some at once.

    :param rate: per second.
    :param now: seconds, of any clock that never goes back.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.most = max(1.0, 3 * rate)
        self.left = self.most
        self.at = now

    def take(self, now: float) -> float:
        """Takes one; returns 0, or if there is none left, in how many seconds there will be one."""
        self.left = min(self.most, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.rate
        self.left -= 1
        return 0

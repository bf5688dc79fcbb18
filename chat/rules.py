"""The rules for what clients may send (no I/O). An error is for the client: a code and a sentence."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

#: The most characters of a message, of a person's name, and of a room's name.
MAX_TEXT = 1000
MAX_NAME = 40
MAX_ROOM = 30
#: The most rooms that one client may be in.
MAX_ROOMS = 12
#: The room that everybody is in and nobody can leave.
LOBBY = "lobby"
#: The Socket.IO room of the chat's room "lobby" is "#lobby". So no client can enter a Socket.IO room of another kind.
PREFIX = "#"
#: What the ids look like that a client makes for itself and for its messages. They are random, so they are unique.
_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


class RequestRefused(Exception):
    """The server does not accept what a client sent.

    :param code: a short word; the page shows its own text for it, in the user's language.
    :param text: an English sentence that says what is wrong.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code

    def answer(self) -> dict[str, Any]:
        """The acknowledgement that the client gets."""
        return {"error": self.code, "text": str(self)}


def clean(value: object, what: str, most: int) -> str:
    """Returns a text that a client sent as one line: each run of white space becomes one space.

    :param value: what the client sent; it can be of any type.
    :param what: what the text is, for the error message.
    :param most: the most characters it may have.
    :raises RequestRefused: if it is no text, or empty, or too long.
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
    """Returns a room's name in its one valid form: lower case, with hyphens for spaces.

    :param value: what the client sent; it can be of any type.
    :raises RequestRefused: if it is no text, or empty, or too long, or has other characters than letters and digits of
        any script, hyphens and underscores.
    """
    name = unicodedata.normalize("NFKC", clean(value, "room", MAX_ROOM)).lower().replace(" ", "-")
    # Combining marks are allowed too, because many scripts write letters with them.
    if not all(c in "-_" or unicodedata.category(c)[0] in "LNM" for c in name) or len(name) > MAX_ROOM:
        raise RequestRefused("room", "a room's name has letters, digits, hyphens and underscores")
    return name


def chat_rooms(rooms: Iterable[object]) -> list[str]:
    """Returns the names of the chat's rooms among some Socket.IO rooms, sorted."""
    return sorted(room[len(PREFIX) :] for room in map(str, rooms) if room.startswith(PREFIX))


def own_id(value: object, what: str) -> str:
    """Returns an id that the client made.

    :param value: what the client sent; it can be of any type.
    :param what: what the id is for, for the error message.
    :raises RequestRefused: if it is not 8 to 64 ASCII letters, digits or hyphens.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise RequestRefused("invalid", f"the {what} must be 8 to 64 letters, digits or hyphens")
    return value


def public_id(client: str) -> str:
    """Returns what others may see in place of a client's own id. It is a hash, from which nobody can find the id."""
    return hashlib.sha256(client.encode()).hexdigest()[:16]


class Introduction:
    """What a client says about itself when it connects.

    Values that break the rules are replaced or left out, so that every client can connect.

    :param auth: the ``auth`` object that the client sent. It is untrusted, and can be of any type.
    :param sid: the session id; a client without a valid name or id gets one that is made from it.
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
        #: The rooms that the client was in -> the number of the last message that it has from the room.
        self.rooms: dict[str, int] = {LOBBY: 0}
        rooms = said.get("rooms")
        for room, seen in list(rooms.items())[:MAX_ROOMS] if isinstance(rooms, dict) else ():
            try:
                self.rooms[room_name(room)] = number(seen)
            except RequestRefused:
                continue


def number(value: object) -> int:
    """Returns the number of a message that a client says it has seen; 0 if ``value`` is no such number."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0


class RateLimiter:
    """Limits how many events a client may send: ``rate`` per second on average, three times as many at once.

    This is a token bucket.

    :param rate: events per second.
    :param now: the present time in seconds, of any clock that never goes back.
    """

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.most = max(1.0, 3 * rate)
        self.left = self.most
        self.at = now

    def take(self, now: float) -> float:
        """Asks for one event. Returns 0 if it is allowed now, else the number of seconds until one will be."""
        self.left = min(self.most, self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.rate
        self.left -= 1
        return 0

"""The Lua scripts. Each file in ``lua`` opens with its keys, its arguments and what it returns.

https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Final

from .format import SUPPORTED

#: What a command or a script takes.
Argument = str | bytes | int | float


class Script:
    """A script of this package, with the functions that it shares with others put in front of it.

    :param name: the file's name without ``.lua``.
    :param first: that of a file which runs before those functions are made.
    """

    def __init__(self, name: str, *first: str) -> None:
        folder = resources.files(__package__) / "lua"
        parts = (*first, "_log", "_rooms", "_owned", "_members", name)
        self.name = name
        constants = f"local OLDEST_FORMAT = {SUPPORTED.oldest}"
        self.source = "\n".join([constants, *((folder / f"{part}.lua").read_text() for part in parts)])
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


#: A script, its keys, its arguments.
Call = tuple[Script, Sequence[str], Sequence[Argument]]

# The log.
APPEND: Final = Script("append", "_lone")
TAIL: Final = Script("tail")
RENEW: Final = Script("renew")
SEEK: Final = Script("seek")
EXTENT: Final = Script("extent")
# Sessions.
CREATE: Final = Script("create")
CLAIM: Final = Script("claim")
HEARTBEAT: Final = Script("heartbeat")
DETACH: Final = Script("detach")
SAVE: Final = Script("save")
FORGET: Final = Script("forget")
DUE: Final = Script("due")
ADOPT: Final = Script("adopt")
# The inbox.
LEASE: Final = Script("lease")
TAKE: Final = Script("take")
# The publish/subscribe bridge.
PUBLISH: Final = Script("publish")
# Participants.
PLACE: Final = Script("place")
NODE_HEARTBEAT: Final = Script("node_heartbeat")
MEMBERS: Final = Script("members")
COUNT: Final = Script("count")
PARTICIPANTS: Final = Script("participants")

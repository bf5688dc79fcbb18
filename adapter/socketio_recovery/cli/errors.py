"""What goes wrong for a user of the command line, and the exit codes. No tracebacks for any of it."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

#: The command can't do what was asked for: no such channel, no such session, an emit that was not stored.
FAILED: Final = 1
#: The arguments are wrong. (argparse's own code.)
USAGE: Final = 2
#: Redis can't be reached, or refuses.
REDIS: Final = 3
#: Ctrl-C.
INTERRUPTED: Final = 130


class CommandError(Exception):
    """A command ends with a message.

    :param code: the exit code.
    """

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def place(url: str) -> str:
    """Where a URL leads, without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_reply(error: Exception) -> bool:
    """Whether Redis answered with an error."""
    return any(kind.__name__ == "ResponseError" for kind in type(error).__mro__)


def explained(error: Exception, url: str) -> CommandError:
    """The message for an error of Redis or of its client."""
    text = str(error)
    where = place(url)
    if any(word in text for word in ("AuthenticationError", "WRONGPASS", "NOAUTH", "AuthenticationWrongNumber")):
        hint = "give a user and a password in the URL, as in redis://user:password@host:6379/0"
        return CommandError(f"Redis at {where} does not let us in ({text}): {hint}", REDIS)
    if is_reply(error) and ("NOPERM" in text or "permission" in text):
        return CommandError(
            f"Redis at {where} refuses ({text}): docs/cli.md lists what the user must be allowed", REDIS
        )
    if is_reply(error):
        return CommandError(f"Redis at {where} refuses: {text}", REDIS)
    hint = "say where it is with --url or in SOCKETIO_RECOVERY_URL"
    return CommandError(f"can't reach Redis at {where}: {text.partition(': ')[2] or text}; {hint}", REDIS)

"""Names that no other process has, not even one that was forked from this one.  No I/O.

A server is often built before its processes are forked (``gunicorn --preload``, :mod:`multiprocessing`). Two processes
with one name would take each other's entries and callbacks for their own. So a name begins with the work of a process,
not with the object that does it.
"""

from __future__ import annotations

import os
import uuid


class Identity:
    """What a process is called in its cluster."""

    def __init__(self) -> None:
        self._pid = 0
        self._name = ""

    @property
    def name(self) -> str:
        """The name. It is made when a process asks for it the first time."""
        if self._pid != os.getpid():
            self._pid, self._name = os.getpid(), uuid.uuid4().hex
        return self._name


class Producer:
    """Under which name and number a process appends to the log. Redis skips what it has of it already."""

    def __init__(self) -> None:
        self.renew()

    def begin(self) -> None:
        """A writer begins. It takes a new name if nobody will send the last batch again, and after a fork."""
        if self.waiting or self._pid != os.getpid():
            self.renew()

    def renew(self) -> None:
        """Takes a new name, because what was sent under this one is not sent again."""
        self._pid = os.getpid()
        self.name = uuid.uuid4().hex
        #: The number of the next entry.
        self.sequence = 1
        #: Whether a batch was sent that is not answered.
        self.waiting = False
        #: Whether a batch had to be sent again. A copy of it may still be on its way.
        self.retried = False

    def stored(self, count: int) -> None:
        """A batch of so many entries is stored."""
        self.sequence += count
        self.waiting = False

    @property
    def forgettable(self) -> bool:
        """Whether Redis remembers this name, and need not any longer once nothing more is sent."""
        ours = self._pid == os.getpid()
        return ours and self.sequence > 1 and not self.waiting and not self.retried

"""The structured log of a node: one line of ``key=value`` pairs for each event in the life of the node or a session.

``node=node-a event=session.recovered sid=4fUHlkLQ… name="Ann B."``
"""

from __future__ import annotations

import json
import logging
import re

_PLAIN = re.compile(r"[A-Za-z0-9._:/@+-]+")


class Journal:
    """Writes the log lines of one node.

    :param node: the node's name, which stands in each line.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self._log = logging.getLogger("chat")

    def __call__(self, event: str, level: int = logging.INFO, **fields: object) -> None:
        """Writes one line.

        Values that contain more than plain characters are quoted, so that no client can forge a line by what it sends.

        :param event: what happened, for instance ``session.recovered``.
        :param level: a level of :mod:`logging`.
        :param fields: further pairs; those whose value is ``None`` are left out.
        """
        pairs = {"node": self.node, "event": event, **{k: v for k, v in fields.items() if v is not None}}
        self._log.log(level, "%s", " ".join(f"{key}={_quoted(str(value))}" for key, value in pairs.items()))


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=not value.isprintable())


def configure(level: str) -> None:
    """Sets up logging for a node's process: lines go to standard error and begin with the time.

    :param level: the least level of the chat's own lines. From other libraries, warnings and errors are shown.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("chat").setLevel(level)

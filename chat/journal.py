"""Structured logs: one line for each lifecycle event, as ``key=value`` pairs.

``node=node-a event=session.recovered sid=4fUHlkLQ… name="Ann B."``
"""

from __future__ import annotations

import json
import logging
import re

_PLAIN = re.compile(r"[A-Za-z0-9._:/@+-]+")


class Journal:
    """:param node: named in each line."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._log = logging.getLogger("chat")

    def __call__(self, event: str, level: int = logging.INFO, **fields: object) -> None:
        """Writes a line. What clients sent is quoted, so that it can't look like a line of its own."""
        pairs = {"node": self.node, "event": event, **{k: v for k, v in fields.items() if v is not None}}
        self._log.log(level, "%s", " ".join(f"{key}={_quoted(str(value))}" for key, value in pairs.items()))


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=not value.isprintable())


def configure(level: str) -> None:
    """Sets logging up for a node's process; standard error, with the time in front."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("chat").setLevel(level)

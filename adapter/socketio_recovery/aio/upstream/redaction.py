"""Keeps the ``pid``, which is a secret, out of what python-engineio logs of the packets that it receives."""

from __future__ import annotations

import logging
import re
from typing import Any


class _NoSecrets(logging.Filter):
    _pattern = re.compile(r"(pid\W{1,10}[\x21-\x7e]{1,128}?\.)[A-Za-z0-9_-]{32}")

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._redacted, record.args))
        return True

    def _redacted(self, argument: object) -> object:
        text = str(argument)  # data that python-engineio takes for JSON is a dict or a list here
        redacted = self._pattern.sub(r"\1***", text)
        return argument if redacted == text else redacted


def redact(logger: Any) -> None:
    """Keeps secrets out of a logger's records."""
    logger = getattr(logger, "logger", logger)  # of a LoggerAdapter
    if hasattr(logger, "addFilter"):
        logger.addFilter(_NoSecrets())

"""``tail``: shows the log."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from .channel import Channel
from .errors import USAGE, CommandError
from .log_lines import Line, as_json, as_text, passes, read_line

HELP = "show the log: events, and changes of rooms; live with --follow"
EPILOG = """examples:
  python -m socketio_recovery tail                            the last ten entries
  python -m socketio_recovery tail --follow                   and those that come
  python -m socketio_recovery tail --since 5m --event news    what was emitted in the last five minutes
  python -m socketio_recovery tail --follow --kind enter --kind leave --room lobby
  python -m socketio_recovery tail --since 1h --json > log.json

It reads only, and nodes do not notice it."""
#: How long to wait for entries before looking whether the log is still the same, in seconds.
BLOCK = 1.0
_SINCE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}


def since(text: str) -> float:
    """Seconds: ``90``, ``90s``, ``5m``, ``2h``, ``1d``."""
    match = _SINCE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: use 90, 90s, 5m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument("-n", "--lines", type=int, default=10, help="begin with so many entries (default: 10)")
    parser.add_argument("--since", type=since, metavar="TIME", help="begin so long ago: 90s, 5m, 2h")
    parser.add_argument("--event", action="append", default=[], help="only events of this name (may be repeated)")
    parser.add_argument(
        "--room", action="append", default=[], help="only entries that name this room (may be repeated)"
    )
    parser.add_argument("--namespace", action="append", default=[], help="only this namespace (may be repeated)")
    parser.add_argument(
        "--kind", action="append", default=[], help="only event, enter, leave, close, disconnect, ... (may be repeated)"
    )
    parser.add_argument("--width", type=int, default=200, help="characters of data in a line; 0 for all (default: 200)")
    parser.add_argument("--json", action="store_true", help='one JSON object a line; binary data is {"base64": "..."}')


async def run(channel: Channel, arguments: argparse.Namespace) -> None:
    if arguments.lines < 0:
        raise CommandError("--lines must be 0 or more", USAGE)
    await channel.must_exist()
    view = View(arguments)
    last = await channel.call("XREVRANGE", channel.keys.log, "+", "-", "COUNT", 1)
    at = last[0][0].decode() if last else "0"
    if arguments.since is not None:
        at = await _forward(channel, view, f"{max(0, round(await channel.now() - arguments.since * 1000))}", at)
    else:
        await _last(channel, view, arguments.lines)
    if arguments.follow:
        await _follow(channel, view, at)


class View:
    """What of the log is shown, and how."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._filters = (arguments.kind, arguments.namespace, arguments.room, arguments.event)
        self._json = arguments.json
        self._width = arguments.width

    def wanted(self, items: Sequence[Any]) -> list[Line]:
        return [line for line in map(read_line, items) if passes(line, *self._filters)]

    def show(self, lines: Sequence[Line]) -> None:
        for line in lines:
            print(as_json(line) if self._json else as_text(line, self._width), flush=True)


async def _last(channel: Channel, view: View, count: int) -> None:
    found: list[Line] = []
    before = "+"
    while len(found) < count:
        items = await channel.read_back(before)
        if not items:
            break
        before = items[-1][0].decode()
        found += view.wanted(items)
    view.show(found[:count][::-1])


async def _forward(channel: Channel, view: View, start: str, last: str) -> str:
    """Shows what there is behind an id, up to the entry that was the last one; returns where it stopped."""
    at = start
    while _order(at) < _order(last):
        items = await channel.read(at)
        if not items:
            break
        view.show(view.wanted([item for item in items if _order(item[0].decode()) <= _order(last)]))
        at = items[-1][0].decode()
    return last


async def _follow(channel: Channel, view: View, at: str) -> None:
    while True:
        items = await channel.read(at, BLOCK)
        if items:
            view.show(view.wanted(items))
            at = items[-1][0].decode()
            continue
        last = await channel.call("XREVRANGE", channel.keys.log, "+", "-", "COUNT", 1)
        if last and _order(last[0][0].decode()) < _order(at):
            at = "0"  # the log was lost, and begun anew by a clock that is behind


def _order(id: str) -> tuple[int, int]:
    ms, _, n = id.partition("-")
    return int(ms), int(n or 0)

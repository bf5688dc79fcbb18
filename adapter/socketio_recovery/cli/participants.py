"""``participants``: who is in a room, or in a namespace, and who is only reconnecting."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from ..aio.participants import Participants
from ..aio.script_calls import ScriptCalls
from ..participants import Participant
from .channel import Channel
from .text import duration, printable, table

HELP = "say who is in a room, on all nodes, and who is only reconnecting"
EPILOG = """examples:
  python -m socketio_recovery participants                             everybody
  python -m socketio_recovery participants --room lobby --room hall    who is in any of them
  python -m socketio_recovery participants --room lobby --count
  python -m socketio_recovery participants --json --data | jq .data.name

Only those who are asked for are looked at. It runs scripts, which change nothing: the Redis user needs
eval and evalsha."""

#: How long one call may take, in seconds.
TIMEOUT = 30.0


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--room", action="append", default=[], help="those in this room (repeat it for several); default: everybody"
    )
    parser.add_argument("--namespace", default="/", help="the namespace (default: /)")
    parser.add_argument("--count", action="store_true", help="only how many, by state")
    parser.add_argument("--data", action="store_true", help="also their session data")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


async def run(channel: Channel, arguments: argparse.Namespace) -> None:
    await channel.must_exist()
    asks = Participants(ScriptCalls(channel.link), channel.keys, TIMEOUT)
    if arguments.count:
        count = await asks.count(arguments.namespace, arguments.room)
        if arguments.json:
            print(json.dumps({**count._asdict(), "total": count.total}))
        else:
            print(f"{count.connected} connected, {count.reconnecting} reconnecting")
        return
    found = await asks.list(arguments.namespace, arguments.room)
    if arguments.json:
        for one in found:
            said = one._asdict()
            if not arguments.data:
                del said["data"]
            print(json.dumps(said))
    elif found:
        print(_table(found, await channel.now() / 1000, arguments.data))
    else:
        print("nobody")


def _table(found: Sequence[Participant], now: float, data: bool) -> str:
    cells = []
    for one in found:
        rooms = ", ".join(map(str, one.rooms)) or "-"
        row = [one.sid, one.state, duration(max(0.0, now - one.since)), one.node[:8] or "-", rooms]
        cells.append([printable(cell) for cell in (*row, *([json.dumps(one.data)] if data else []))])
    return table(("SID", "STATE", "FOR", "NODE", "ROOMS", *(["DATA"] if data else [])), cells)

"""``sessions``: lists sessions, or shows one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from .channel import Channel
from .errors import CommandError
from .progress import Progress
from .session_rows import STATES, Ages, Row, ages, rows
from .text import duration, printable, table

HELP = "list sessions, or show one: state, node, rooms, age"
EPILOG = """examples:
  python -m socketio_recovery sessions
  python -m socketio_recovery sessions --state reconnecting --room lobby
  python -m socketio_recovery sessions 9Zt3kq0Xh2mVb1cDeFgH
  python -m socketio_recovery sessions --json --limit 0 | jq -r .node | sort | uniq -c

states:
  connected      its client is connected
  reconnecting   its connection was lost, and it waits for its client
  lost           its node is dead, and another node runs its disconnect handler
  expired        it waited in vain; what is left of it goes by itself

All keys of the database are looked at; where there are millions, this takes a while, and does not hold up others.
Secrets and the sessions' own data are not shown."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sid", nargs="*", help="show these only")
    parser.add_argument("--state", action="append", choices=STATES, help="only those (may be repeated)")
    parser.add_argument("--room", action="append", default=[], help="only those in this room (may be repeated)")
    parser.add_argument(
        "--namespace", action="append", default=[], help="only those of this namespace (may be repeated)"
    )
    parser.add_argument("--node", action="append", default=[], help="only those on this node (may be repeated)")
    parser.add_argument("--limit", type=int, default=1000, help="so many at most; 0 for all (default: 1000)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


async def run(channel: Channel, arguments: argparse.Namespace) -> None:
    await channel.must_exist()
    now, old = await channel.now(), await ages(channel)
    if arguments.sid:
        await _show(channel, arguments, now, old)
        return
    found: list[Row] = []
    seen: set[bytes] = set()
    more = False
    with Progress("sessions", await channel.call("DBSIZE")) as progress:
        async for keys in channel.scan("session"):
            new = [key for key in keys if key not in seen]
            seen.update(new)
            async for row in rows(channel, now, new):
                if _wanted(row, arguments):
                    found.append(row)
            progress.add(len(new))
            if arguments.limit and len(found) > arguments.limit:
                more = True
                break
    found = sorted(found[: arguments.limit] if arguments.limit else found, key=lambda row: (row.namespace, row.birth))
    _print(found, arguments, old)
    if more:
        print(f"there are more than {arguments.limit}: use --limit, or look for fewer", file=sys.stderr)


async def _show(channel: Channel, arguments: argparse.Namespace, now: int, old: Ages) -> None:
    found = [row async for row in rows(channel, now, [channel.keys.session(sid).encode() for sid in arguments.sid])]
    _print(found, arguments, old)
    missing = set(arguments.sid) - {row.sid for row in found}
    if missing:
        raise CommandError(f"no such session: {printable(', '.join(sorted(missing)))}")


def _wanted(row: Row, arguments: argparse.Namespace) -> bool:
    return (
        (not arguments.state or row.state in arguments.state)
        and (not arguments.namespace or row.namespace in arguments.namespace)
        and (not arguments.node or row.node in arguments.node)
        and (not arguments.room or any(room in row.rooms for room in arguments.room))
    )


def _print(found: Sequence[Row], arguments: argparse.Namespace, old: Ages) -> None:
    if arguments.json:
        for row in found:
            age = old.age(row)
            print(json.dumps({**row._asdict(), "age": age}))
        return
    cells = []
    for row in found:
        age = old.age(row)
        cells.append(
            (
                *(row.sid, row.namespace, row.state, row.node[:8] or "-"),
                *("older than the log" if age is None else duration(age), ", ".join(row.rooms) or "-"),
            )
        )
    if cells:
        print(table(("SID", "NAMESPACE", "STATE", "NODE", "AGE", "ROOMS"), cells))
    elif not arguments.sid:
        print("no sessions", file=sys.stderr)

"""``stats``: the log, the sessions, the inbox, in numbers."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

from .channel import Channel
from .progress import Progress
from .session_rows import STATES, rows
from .text import decoded, duration, size

HELP = "the log, the sessions and the inbox in numbers"
EPILOG = """examples:
  python -m socketio_recovery stats
  python -m socketio_recovery stats --json --no-sessions

Sessions are counted by looking at all keys of the database; --no-sessions leaves that out."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-sessions", action="store_true", help="do not look for sessions and producers")
    parser.add_argument("--json", action="store_true", help="one JSON object")


async def run(channel: Channel, arguments: argparse.Namespace) -> None:
    await channel.must_exist()
    found = await _stats(channel, not arguments.no_sessions)
    print(json.dumps(found, indent=2) if arguments.json else _text(found))


async def _stats(channel: Channel, with_sessions: bool) -> dict[str, Any]:
    keys = channel.keys
    meta, entries, first, last, memory, inbox, rejected, taker = await channel.call_many(
        [
            ("HMGET", keys.meta, "epoch", "n", "format", "retention"),
            ("XLEN", keys.log),
            ("XRANGE", keys.log, "-", "+", "COUNT", 1),
            ("XREVRANGE", keys.log, "+", "-", "COUNT", 1),
            ("MEMORY", "USAGE", keys.log),
            ("XLEN", keys.inbox),
            ("XLEN", keys.rejected),
            ("HGET", keys.taker, "node"),
        ]
    )
    now = await channel.now()
    times = [int(end[0][0].partition(b"-")[0]) for end in (first, last) if end]
    epoch, n, format, retention = (int(value) if value and value.isdigit() else None for value in meta)
    found: dict[str, Any] = {
        "channel": channel.name,
        "log": {
            "entries": entries,
            "bytes": memory or 0,
            "span": (times[1] - times[0]) / 1000 if times else 0.0,
            "last": (now - times[1]) / 1000 if times else None,
            "retention": None if retention is None else retention / 1000,
            "epoch": epoch,
            "n": n,
            "format": format,
        },
        "inbox": {"entries": inbox, "rejected": rejected, "taker": decoded(taker) or None},
    }
    if with_sessions:
        states: Counter[str] = Counter()
        nodes: Counter[str] = Counter()
        seen: set[bytes] = set()
        with Progress("sessions", await channel.call("DBSIZE")) as progress:
            async for some in channel.scan("session"):
                new = [key for key in some if key not in seen]
                seen.update(new)
                async for row in rows(channel, now, new, rooms=False):
                    states[row.state] += 1
                    if row.state == "connected":
                        nodes[row.node] += 1
                progress.add(len(new))
        producers: set[bytes] = set()
        async for some in channel.scan("producer"):
            producers.update(some)
        found["sessions"] = {state: states[state] for state in STATES}
        found["nodes"] = dict(nodes)
        found["producers"] = len(producers)
    return found


def _text(found: dict[str, Any]) -> str:
    log, inbox = found["log"], found["inbox"]
    kept = "" if log["retention"] is None else f"; nodes ask for {duration(log['retention'])}"
    since = "" if log["last"] is None else f", the last one {duration(log['last'])} ago"
    lines = [
        f"channel    {found['channel']}",
        f"log        {log['entries']:,} entries, {size(log['bytes'])}{since}",
        f"           it reaches back {duration(log['span'])} from the last entry{kept}",
        f"           epoch {log['epoch']}, number {log['n']}, format {log['format'] or 1}",
    ]
    if "sessions" in found:
        counts = ", ".join(f"{count:,} {state}" for state, count in found["sessions"].items())
        lines.append(f"sessions   {counts}")
        lines += [f"           {count:,} on node {node[:8]}" for node, count in sorted(found["nodes"].items())]
        lines.append(f"producers  {found['producers']:,} (processes that wrote to the log in the last day)")
    taker = f"taken over by node {inbox['taker'][:8]}" if inbox["taker"] else "nobody takes it over just now"
    lines.append(f"inbox      {inbox['entries']:,} entries, {inbox['rejected']:,} set aside as malformed; {taker}")
    return "\n".join(lines)

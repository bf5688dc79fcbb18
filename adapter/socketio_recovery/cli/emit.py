"""``emit``: emits an event."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from ..aio.manager import AsyncRedisStreamsManager
from ..errors import PublishTimeout, UnsupportedFormat
from ..outside_event import Malformed, parsed_json
from .channel import Channel
from .errors import USAGE, CommandError
from .text import printable

HELP = "emit an event to clients"
EPILOG = """examples:
  python -m socketio_recovery emit news '{"text": "hello"}'               to everybody
  python -m socketio_recovery emit news '"hello"' --room lobby --room hall
  python -m socketio_recovery emit news --text hello --namespace /chat
  python -m socketio_recovery emit position 1.5 2.5                      an event with two arguments
  date | python -m socketio_recovery emit log --text -                   from standard input"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("event", help="the name of the event")
    parser.add_argument(
        "data", nargs="*", help='JSON values, one for each argument of the event; "-" reads one from stdin'
    )
    parser.add_argument("--text", action="store_true", help="the data are texts, not JSON")
    parser.add_argument(
        "--room",
        action="append",
        default=[],
        help="to a room, or to the sid of a client (repeat it for several); default: all",
    )
    parser.add_argument("--namespace", default="/", help="the namespace (default: /)")
    parser.add_argument(
        "--skip", action="append", default=[], metavar="SID", help="not to this client (may be repeated)"
    )
    parser.add_argument("--volatile", action="store_true", help="clients that miss it do not get it later")
    parser.add_argument("--timeout", type=float, default=10, help="how long Redis may take, in seconds (default: 10)")


async def run(channel: Channel, arguments: argparse.Namespace) -> None:
    values = tuple(_value(text, arguments.text) for text in arguments.data)
    if not arguments.namespace.startswith("/"):
        raise CommandError(f"a namespace begins with /: --namespace /{arguments.namespace}", USAGE)
    if not channel.keys.partition:  # else it is known that it exists
        await channel.must_exist()  # to write to another one would make it, and reach nobody
    quiet = logging.getLogger("socketio_recovery.cli")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    manager = AsyncRedisStreamsManager(
        arguments.url,
        channel.name,
        write_only=True,
        logger=quiet,
        publish_timeout=arguments.timeout,
        shards=channel.shards,
    )
    try:
        async with manager:
            await manager.emit(
                arguments.event,
                values,
                arguments.namespace,
                room=arguments.room or None,
                skip_sid=arguments.skip,
                volatile=arguments.volatile,
            )
    except (PublishTimeout, UnsupportedFormat, ValueError, TypeError) as error:
        raise CommandError(str(error)) from None
    whom = f"to {', '.join(arguments.room)}" if arguments.room else "to everybody"
    print(printable(f"emitted {arguments.event} {whom} in {arguments.namespace}"))


def _value(text: str, is_text: bool) -> Any:
    if text == "-":
        text = sys.stdin.read()
        text = text.removesuffix("\n") if is_text else text
    if is_text:
        return text
    try:
        return parsed_json("the data", text)
    except Malformed as error:
        raise CommandError(
            f"{str(error).partition(';')[0]}; for text use quotes ('\"text\"') or --text", USAGE
        ) from None

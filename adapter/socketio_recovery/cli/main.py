"""The command line's arguments, and its end: exit codes, and messages in place of tracebacks."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

from ..aio.redis_client import client_for
from ..aio.redis_link import RedisLink
from ..aio.redis_servers import servers_of
from ..aio.tasks import AGAIN
from ..errors import RedisUnavailable
from ..redis.keys import Keys, partition_of
from . import emit, participants, sessions, stats, tail
from .channel import Channel
from .errors import INTERRUPTED, USAGE, CommandError, explained, is_reply, place

#: The commands. Each is a module with HELP, EPILOG, ``add(parser)`` and ``await run(channel, arguments)``.
COMMANDS: Final = {"emit": emit, "participants": participants, "sessions": sessions, "tail": tail, "stats": stats}
VARIABLE: Final = "SOCKETIO_RECOVERY_URL"
URL: Final = "redis://localhost:6379/0"
#: A sid of python-engineio that begins with "-", as one in 64 does.
SID: Final = re.compile(r"-[A-Za-z0-9_-]{19}")
MARK: Final = "\0"
#: How long Redis may be silent, in seconds.
TIMEOUT: Final = 10.0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the user says. Options may stand between an event's name and its data, which subparsers can't parse."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--url",
        default=os.environ.get(VARIABLE) or URL,
        help=f"where Redis is, as managers take it (default: ${VARIABLE}, or {URL})",
    )
    common.add_argument("--channel", default="socketio", help="the channel of the cluster (default: socketio)")
    common.add_argument(
        "--partition",
        type=int,
        help="which partition to look into, if there are several (default: that of --namespace, else 0)",
    )
    main = argparse.ArgumentParser(
        prog="python -m socketio_recovery",
        description="Looks into a cluster of Socket.IO servers, and emits to its clients.",
        epilog="exit codes: 0 done, 1 it could not be done, 2 wrong arguments, 3 Redis can't be reached or refuses.",
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="command")
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, command in COMMANDS.items():
        parsers[name] = commands.add_parser(
            name,
            parents=[common],
            help=command.HELP,
            description=command.HELP[:1].upper() + command.HELP[1:] + ".",
            epilog=command.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add(parsers[name])
    said = list(sys.argv[1:] if arguments is None else arguments)
    if not said or said[0] not in parsers:
        return main.parse_args(said)  # help, or an error
    # argparse takes what begins with "-" for an option, also a sid.
    words = [MARK + word if SID.fullmatch(word) else word for word in said[1:]]
    found = parsers[said[0]].parse_intermixed_args(words, argparse.Namespace(command=said[0]))
    for name, value in vars(found).items():
        if isinstance(value, list):
            setattr(found, name, [word.removeprefix(MARK) for word in value])
    return found


async def _run(arguments: argparse.Namespace) -> None:
    try:
        client = client_for(arguments.url, {}, arguments.channel)
        keys = Keys(arguments.channel)
        servers = servers_of(client, keys.log)
        link = RedisLink(servers, TIMEOUT)
    except (ValueError, RuntimeError) as error:
        raise CommandError(str(error), USAGE) from None
    try:
        said = await link.call("HGET", keys.meta, "shards") or b""
        shards = int(said) if said.isdigit() else 1
        if number := _partition(arguments, shards):
            await link.close()
            keys = Keys(arguments.channel, number)
            link = RedisLink(servers_of(client, keys.log), TIMEOUT)
        channel = Channel(link, arguments.channel, keys, shards, place(arguments.url))
        await COMMANDS[arguments.command].run(channel, arguments)
    except RedisUnavailable as error:
        raise explained(error, arguments.url) from None
    except Exception as error:
        if is_reply(error):
            raise explained(error, arguments.url) from None
        raise
    finally:
        await link.close()
        await servers.close()


def _partition(arguments: argparse.Namespace, shards: int) -> int:
    """The partition to look into.

    :raises CommandError: if there is none with the number that the user gives.
    """
    number, said = arguments.partition, getattr(arguments, "namespace", [])
    if number is None:
        numbers = {partition_of(namespace, shards) for namespace in ([said] if isinstance(said, str) else said)}
        if len(numbers) > 1:
            raise CommandError("these namespaces are in different partitions: ask for one after the other", USAGE)
        if not numbers and shards > 1:
            print(f"the cluster has {shards} partitions; this is partition 0 (see --partition)", file=sys.stderr)
        return next(iter(numbers), 0)
    if not 0 <= number < shards:
        raise CommandError(f"there is no partition {number}: the cluster has {shards}, from 0 on", USAGE)
    return int(number)


def _run_until_interrupted(loop: asyncio.AbstractEventLoop, command: Coroutine[Any, Any, None]) -> None:
    """Runs a command. Ctrl-C cancels it until it ends: a library may swallow a cancellation while it connects.

    :raises KeyboardInterrupt: if it was interrupted.
    """
    task = loop.create_task(command)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        if not task.done():
            task.cancel()
            loop.call_later(AGAIN, interrupt)

    with suppress(NotImplementedError, RuntimeError, ValueError):  # not on Windows, and only in the main thread
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    said = parsed(arguments)
    try:
        with asyncio.Runner() as runner:
            _run_until_interrupted(runner.get_loop(), _run(said))
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # as with "| head": nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0

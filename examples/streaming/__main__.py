"""Runs the example on this machine: a Redis server, three nodes, the worker. ``python -m examples.streaming``

It is the README's commands in one. Ctrl-C stops everything.
"""

import argparse
import contextlib
import http.client
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import redis

from local.ports import check_port
from local.processes import die_with_parent
from local.redis_server import RedisServer

FOLDER = Path(__file__).parent
HOST = "127.0.0.1"


def main():
    parser = argparse.ArgumentParser(
        prog="python -m examples.streaming",
        description="Streams answers word by word through a cluster whose nodes you can kill.",
        epilog="If REDIS_URL is set, that Redis is used, and none is started. Ctrl-C stops everything.",
    )
    parser.add_argument("--port", type=int, default=8080, help="the port (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=3, help="how many nodes (default: %(default)s)")
    options = parser.parse_args()
    if not 1 <= options.port <= 65535:
        parser.error("--port takes a number from 1 to 65535")
    if not 1 <= options.nodes <= 26:
        parser.error("--nodes takes a number from 1 to 26")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with contextlib.ExitStack() as stack:
            run(options, stop, stack)
            print("stopping", flush=True)
    except (OSError, RuntimeError) as error:
        print(f"streaming: {error}", file=sys.stderr, flush=True)
        return 1
    print("stopped", flush=True)
    return 0


def run(options, stop, stack):
    """Starts everything, and waits. What was started is stopped by ``stack``, the last one first.

    :raises OSError, RuntimeError: if something can't be started, or ends by itself. The message is for the user.
    """
    for package in ("fastapi", "uvicorn", "websockets"):
        if importlib.util.find_spec(package) is None:
            raise RuntimeError(f"{package} is not installed: pip install fastapi 'uvicorn[standard]'")
    check_port(HOST, options.port)
    if redis_url := os.environ.get("REDIS_URL"):
        try:
            redis.Redis.from_url(redis_url, socket_connect_timeout=5).ping()
        except (redis.RedisError, ValueError) as error:
            raise RuntimeError(f"the Redis in REDIS_URL can't be used: {error}") from None
    else:
        server = RedisServer(preexec=die_with_parent, avoid=(options.port,))
        stack.callback(server.stop)
        redis_url = server.url

    def start(*command):
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=FOLDER,
            env={**os.environ, "REDIS_URL": redis_url, "DEMO": "1"},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches only this process, which stops the others in order
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),  # uvicorn has to end its workers
        )
        stack.callback(end, process)
        return process

    # uvicorn starts a new process where one has died.
    where = ("--host", HOST, "--port", str(options.port), "--workers", str(options.nodes))
    nodes = start("-m", "uvicorn", "main:app", *where, "--timeout-graceful-shutdown", "10", "--log-level", "warning")
    processes = {"the nodes": nodes, "the worker": start("worker.py")}
    up = False
    while not stop.wait(0.1):
        for name, process in processes.items():
            if (status := process.poll()) is not None:
                raise RuntimeError(f"{name} ended with status {status}")
        if not up and (up := ready(options.port)):
            print(f"Streaming at http://localhost:{options.port}/ (Ctrl-C stops it)", flush=True)


def ready(port):
    """Whether a node takes clients."""
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def end(process):
    """Ends a process: in order, or by force after 15 seconds."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())

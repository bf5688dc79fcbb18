"""The modes of synchronous servers, in processes as applications have them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from socketio_recovery.threads.modes import Gevent, Threading, mode_of, mode_of_process

PATCHED = """
from gevent import monkey

monkey.patch_all()
import asyncio
import logging
import threading

from socketio_recovery.threads.bridge import Bridge
from socketio_recovery.threads.modes import mode_of, mode_of_process

for mode in (mode_of_process(), mode_of("threading")):
    bridge = Bridge(mode, lambda: logging.getLogger("test"))
    found = []


    async def core(number):
        await asyncio.sleep(0.01)
        return number


    def work(number):
        found.append(bridge.run(core, number))


    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    print(sorted(found))
    bridge.stop(20)
"""


def test_threads_are_native_where_nothing_is_patched() -> None:
    assert isinstance(mode_of_process(), Threading)
    assert isinstance(mode_of("threading"), Threading)


def test_in_a_process_that_gevent_has_patched_threads_are_greenlets() -> None:
    pytest.importorskip("gevent")
    assert isinstance(mode_of("gevent"), Gevent)
    command = [sys.executable, "-c", PATCHED]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3, 4]\n" * 2, "")


PATCHED_LOOP = """
from gevent import monkey

monkey.patch_all()
import logging

from socketio_recovery.threads.bridge import Bridge
from socketio_recovery.threads.modes import mode_of

bridge = Bridge(mode_of("gevent"), lambda: logging.getLogger("test"))


async def look_up(host):
    import asyncio

    loop = asyncio.get_running_loop()
    return type(loop._selector).__module__, [address[:2] for *_, address in await loop.getaddrinfo(host, 80, type=1)]


module, addresses = bridge.run(look_up, "localhost")
print(module, ("127.0.0.1", 80) in addresses)
try:
    bridge.run(look_up, "a..b")
except UnicodeError:
    print("no name of a host")
bridge.stop(20)
"""


def test_under_gevent_the_event_loop_waits_on_the_system_and_finds_hosts_by_their_names() -> None:
    pytest.importorskip("gevent")
    command = [sys.executable, "-c", PATCHED_LOOP]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("selectors True\nno name of a host\n", "")

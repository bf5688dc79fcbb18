"""Forked processes end with the process that started them, however that ends. Else tests would leave nodes behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forked import Forked
from tests.support.paths import ROOT
from tests.support.waiting import until

STARTS_ONE = """
import sys, time
from pathlib import Path
from tests.support.forked import Forked
print(Forked("time", "sleep", 1000, log=Path(sys.argv[1])).pid, flush=True)
time.sleep(1000)
"""


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
async def test_a_forked_process_ends_with_the_one_that_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, str(tmp_path / "log")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert parent.stdout is not None
    with parent.stdout:
        try:
            child = int(parent.stdout.readline())
            assert lives(child)
        finally:
            parent.kill()
            parent.wait()
    await until(lambda: not lives(child))


def test_it_has_the_methods_of_a_subprocess(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = Forked("builtins", "print", "said", log=log)
    assert process.wait(40) == 0
    assert log.read_text() == "said\n"
    process = Forked("time", "sleep", 1000, log=log)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == -signal.SIGTERM
    process.kill()  # it is no error that it has ended

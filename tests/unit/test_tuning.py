"""What a process with many clients sets once: in a process of its own, since it concerns all of it."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from socketio_recovery import tuning

START = """
import gc, logging, resource as r
from socketio_recovery import tuning
logging.basicConfig(format='%(message)s')
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, check=True)


def test_collections_become_rare_and_what_is_there_is_frozen() -> None:
    before = gc.get_threshold()
    found = python("tuning.collect_less(); print(gc.get_threshold(), gc.get_freeze_count() > 1000, gc.isenabled())")
    middle = tuning.MIDDLE if sys.version_info < (3, 14) else before[1]
    assert found.stdout.strip() == f"{(before[0], middle, tuning.FULL)} True True"
    with pytest.raises(ValueError, match="turn the collector off"):
        tuning.collect_less(0)
    assert gc.get_threshold() == before


def test_circles_that_nothing_refers_to_are_still_found() -> None:
    code = """
import weakref
class Circle:
    def __init__(self): self.me = self
tuning.collect_less()
gone = weakref.ref(Circle())
kept = [[] for _ in range(5000)]
print(gone())
"""
    assert python(code).stdout.strip() == "None"


def test_the_soft_limit_of_open_files_is_raised_up_to_the_hard_one() -> None:
    limits = "r.setrlimit(r.RLIMIT_NOFILE, (64, 1000));"
    print_limits = "print(r.getrlimit(r.RLIMIT_NOFILE))"
    enough = python(f"{limits} print(tuning.allow_files(500)); {print_limits}")
    assert (enough.stdout.split("\n")[:2], enough.stderr) == (["500", "(700, 1000)"], "")
    more = python(f"{limits} print(tuning.allow_files(2000)); {print_limits}")
    assert more.stdout.split("\n")[:2] == ["800", "(1000, 1000)"]
    assert "2000 clients need 2200 open files, and this process may have 1000" in more.stderr
    assert "LimitNOFILE" in more.stderr
    unchanged = python(f"r.setrlimit(r.RLIMIT_NOFILE, (900, 1000)); tuning.allow_files(10); {print_limits}")
    assert unchanged.stdout.strip() == "(900, 1000)"
    with pytest.raises(ValueError, match="above 0"):
        tuning.allow_files(0)


def test_the_backlog_is_what_linux_allows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = tmp_path / "somaxconn"
    monkeypatch.setattr(tuning, "_SOMAXCONN", limit)
    assert tuning.backlog() == tuning.BACKLOG, "not Linux"
    limit.write_text("4096\n")
    assert (tuning.backlog(), tuning.backlog(100)) == (4096, 100)
    assert caplog.records == []
    limit.write_text("128\n")
    with caplog.at_level(logging.WARNING):
        assert tuning.backlog() == 128
    assert "net.core.somaxconn=4096" in caplog.text

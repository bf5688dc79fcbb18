"""Ports: processes that run side by side are never given the same one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from local import ports
from tests.support.paths import ROOT

PROGRAM = "from local.ports import free_port; print(*[free_port() for _ in range(20)]); input()"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return ports.registry_path()


def test_processes_are_given_different_ports_while_they_live(registry: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        given = [int(port) for process in processes if process.stdout for port in process.stdout.readline().split()]
        assert len(set(given)) == 3 * 20
        assert ports.free_port() not in given
    finally:
        for process in processes:
            process.communicate("\n", timeout=20)
    ports.free_port()
    assert len(registry.read_text().splitlines()) == 2, "what processes had that ended is free again"


def test_ports_to_avoid_are_not_given() -> None:
    assert ports.free_port(avoid=range(15_000, 31_000)) in range(31_000, 32_000)


def test_half_a_line_is_passed_over(registry: Path) -> None:
    registry.write_text("15000 1\n150")
    ports.free_port()
    ports.free_port()
    assert len(registry.read_text().splitlines()) == 3

"""Processes on this machine: how one ends together with its parent, and which ones run."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from pathlib import Path


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Makes the kernel send this process a signal when its parent dies, however the parent dies. Linux only.

    A new process calls it before it becomes another program: pass it as ``preexec_fn`` of :class:`subprocess.Popen`.

    :param number: the signal: SIGTERM for a program that has processes of its own to end.
    """
    if _prctl is not None:
        _prctl(1, number)  # PR_SET_PDEATHSIG


_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def running_processes() -> Iterator[tuple[int, tuple[int, str]]]:
    """Lists all processes, zombies included: (process id, (id of its parent, command line)). Linux only."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # the process ended after the folder was listed
        yield int(folder.name), (int(stat.rpartition(")")[2].split()[1]), command)

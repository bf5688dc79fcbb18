"""The benchmarks run, and report what they measured. No speed is asserted."""

from __future__ import annotations

import json
import re
import selectors
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import plots, receivers, report
from benchmarks.event import MARK, event_argument
from benchmarks.processes import HERE
from benchmarks.receivers import Receiver, Sockets
from tests.support.paths import ROOT

WORKS = ("fanout-20", "awaited", "latency", "recover-200", "recover-1k", "missed", "rooms")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_small_load(tmp_path: Path) -> None:
    against = ["uvicorn", "redis", "redis-uvicorn", "bare", *(["node"] if (HERE / "node_modules").exists() else [])]
    only = [part for name in WORKS for part in ("--only", name)]
    done = run("--rounds", "1", "--scale", "0.01", *only, "--out", str(tmp_path), "--against", *against)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert {*results["works"], *(curve["name"] for curve in results["growth"])} == set(WORKS)
    for work in results["works"].values():
        for measures in work["result"].values():
            assert measures
            assert all(value >= 0 for values in measures.values() for value in values)
    assert set(results["works"]["fanout-20"]["result"]) == {"recovery", *against}
    assert "fan-out, 20 receivers" in done.stdout
    assert "fan-out, 20 receivers, on uvicorn" in done.stdout


def test_a_small_load_of_partitions(tmp_path: Path) -> None:
    done = run("--rounds", "1", "--scale", "0.01", "--only", "partitions", "--out", str(tmp_path), "--against")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())["partitions"]
    numbers = {part: set(figures) for part, figures in found.items()}
    assert numbers == {"divided": {"1", "2", "4"}, "followed": {"1", "16"}}
    assert "| 4 partitions on as many servers | events/s stored |" in report.partitions({"partitions": found})


@pytest.mark.parametrize("name", ["sync-threads-fanout-20", "sync-script"])
def test_a_small_load_of_synchronous_processes(tmp_path: Path, name: str) -> None:
    done = run("--rounds", "1", "--scale", "0.01", "--only", name, "--out", str(tmp_path), "--against")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())["sync"]
    assert found
    for work in found.values():
        assert set(work["result"]) == {"recovery", "redis"}
        for measures in work["result"].values():
            assert measures
            assert all(len(values) == 1 for values in measures.values())
        assert f"| {work['title']}: " in done.stdout


def test_a_small_look_back(tmp_path: Path) -> None:
    arguments = ("--rounds", "1", "--scale", "0.01", "--only", "look_back", "--events", "400000")
    done = run(*arguments, "--out", str(tmp_path), "--against")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())["look_back"]
    assert (found["events"], [line["clients"] for line in found["clients"]]) == (4000, [1, 2])
    for line in found["clients"]:
        assert line["figures"]["recovered, of each"] == [1]
        assert line["figures"]["p99 ms during"][0] > 0
    assert found["outcomes"] == {"recovered": 3}
    assert "| seconds, many ÷ one | **" in done.stdout


def test_small_storms(tmp_path: Path) -> None:
    names = ("storm-10k", "jitter-4k")
    only = [part for name in names for part in ("--only", name)]
    done = run("--rounds", "1", "--scale", "0.01", *only, "--out", str(tmp_path), "--against")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())["storms"]
    assert set(found) == set(names)
    for storm in found.values():
        assert set(storm["result"]) == set(storm["times"])
        assert "this library, tuned" in storm["times"]
        for times in storm["times"].values():
            assert len(times) == 200
            assert times == sorted(times)
        assert f"| {storm['title']} | this library, tuned | " in done.stdout


def test_few_participants(tmp_path: Path) -> None:
    done = run("--rounds", "1", "--scale", "0.01", "--only", "participants", "--out", str(tmp_path), "--against")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())["participants"]
    assert found["sessions"] == [20, 1000]
    assert all(value > 0 for values in found["figures"].values() for one in values for value in one)
    assert "| a room of 100: ms to count | " in done.stdout


@pytest.mark.skipif(not (HERE / "node_modules").exists(), reason="Node's adapter is not installed")
def test_small_costs(tmp_path: Path) -> None:
    arguments = ("--scale", "0.01", "--only", "costs", "--out", str(tmp_path), "--against", "redis", "node")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())["costs"]
    assert set(found["idle"]) == {"recovery", "redis", "node"}
    assert "| idle clients: bytes per client | " in done.stdout
    assert "| the first ÷ the second | " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--events", "0"], "--events must be at least 1"),
        (["--only", "costs", "--against", "redis"], "beside others: --against redis node"),
        (["--only", "nothing"], "there is no nothing; there are fanout-200"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--scale", "2"], "--scale more than 0"),
    ],
)
def test_mistakes_are_told(arguments: list[str], says: str) -> None:
    done = run(*arguments, "--against")
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


NO_SOCKETS: Any = None


@given(st.lists(st.integers(0, 200), max_size=20), st.lists(st.integers(1, 40), min_size=1, max_size=50))
def test_receivers_count_events_however_they_arrive(gaps: list[int], chunks: list[int]) -> None:
    data = b"".join(b"x" * gap + MARK for gap in gaps) + b"y" * 10
    receiver = Receiver(NO_SOCKETS, [])
    at = 0
    while at < len(data):
        for size in chunks:
            if data[at : at + size]:
                receiver._count(data[at : at + size])
            at += size
    assert receiver.received == len(gaps)


def test_an_answer_to_a_ping_is_a_pong() -> None:
    receiver = Receiver(NO_SOCKETS, [])
    receiver.socket, server = socket.socketpair()
    with receiver.socket, server:
        receiver._count(b"\x81\x012")
        assert server.recv(100) == b"\x81\x81\0\0\0\x003"


def test_a_receiver_that_is_sent_away_has_no_connection() -> None:
    with closing(Sockets()) as sockets:
        receiver = Receiver(sockets, [])
        receiver.socket, server = socket.socketpair()
        with server:
            sockets.connecting.register(receiver.socket, selectors.EVENT_READ, receiver)
            receiver._shake_hands(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x88\x02\x03\xe8")
            assert receiver.socket is None


def test_those_who_connect_come_before_the_rest_of_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "SLICE", 2)
    order: list[str] = []

    class Ready:
        def __init__(self, name: str) -> None:
            self.name = name

        def ready(self, mask: int) -> None:
            order.append(self.name)
            if self.name == "connected" and order.count("connected") == 3:
                begins.send(b"x")

    pairs = [socket.socketpair() for _ in range(6)]
    with closing(Sockets()) as sockets:
        *connected, (connecting, begins) = pairs
        for receives, sends in connected:
            sockets.connected.register(receives, selectors.EVENT_READ, Ready("connected"))
            sends.send(b"x")
        sockets.connecting.register(connecting, selectors.EVENT_READ, Ready("connecting"))
        sockets.turn(1)
        for pair in pairs:
            for end in pair:
                end.close()
    assert order == [*["connected"] * 4, "connecting", "connected"]


def test_an_event_has_the_size_it_is_said_to_have() -> None:
    text = json.dumps(event_argument(100) | {"t": 123_456_789_012_345}, separators=(",", ":"))
    assert len(text) == 100


def results() -> dict[str, Any]:
    """Two rounds, made up."""
    work = {
        "title": "fan-out",
        "result": {"recovery": {"deliveries/s": [100.0, 90.0]}, "redis": {"deliveries/s": [10.0, 30.0]}},
    }
    curve = {
        "name": "c",
        "title": "a curve",
        "x": "clients",
        "y": "s",
        "xs": [1, 10],
        "lines": {"this library": [[1.0, 2.0], [3.0, 3.5]]},
        "log": True,
    }
    return {"machine": "a machine", "works": {"fan-out": work}, "growth": [curve]}


def test_ratios_are_taken_round_by_round() -> None:
    assert report.ratios([100, 90], [10, 30]) == [10, 3]
    table = report.comparison(results())
    assert "| fan-out: deliveries/s | 95 (90 to 100) | 20; **6.50** (3.00 to 10.00) |" in table


def test_what_was_too_small_to_be_measured_has_no_ratio() -> None:
    found = {"divided": {"1": {"CPU": [0.0]}, "2": {"CPU": [1.0]}}, "followed": {"1": {"CPU": [2.0]}}}
    assert "| CPU | 1 | - |" in report.partitions({"partitions": found})


def test_on_uvicorn_it_is_compared_with_the_other_on_uvicorn() -> None:
    found = results()
    work = found["works"]["fan-out"]["result"]
    assert "on uvicorn" not in report.comparison(found)
    work |= {"uvicorn": {"deliveries/s": [80.0, 60.0]}, "node": {"deliveries/s": [40.0, 60.0]}}
    work["redis-uvicorn"] = {"deliveries/s": [20.0, 20.0]}
    line = "| 70 (60 to 80) | 20; **3.50** (3.00 to 4.00) | 50; **1.50** (1.00 to 2.00) |"
    assert f"| fan-out, on uvicorn: deliveries/s {line}" in report.comparison(found)


PAGE = "# Speed\n\n<!-- machine -->\nold\n<!-- / -->\n\nwords\n\n<!-- comparison -->\n<!-- / -->\n"


def test_the_page_gets_its_measured_parts() -> None:
    found = results()
    found["killed"] = [{"clients": 1}]  # a whole run
    filled = report.fill(PAGE, found)
    assert "old" not in filled
    assert "a machine" in filled
    assert "\nwords\n" in filled
    assert report.fill(filled, found) == filled


def test_what_was_not_measured_stays_on_the_page_and_so_does_the_machine() -> None:
    assert "old" in report.fill(PAGE, results())
    assert "fan-out" in report.fill(PAGE, results())
    assert report.fill(PAGE, {"machine": "another", "works": {}, "growth": [], "storms": {}}) == PAGE


def test_plots_are_drawn(tmp_path: Path) -> None:
    found = results()
    times = {"this library, tuned": [0.1, 0.2], "Node's adapter": [1.0, 2.0]}
    found["storms"] = {"s": {"title": "a storm", "times": times}}
    drawn = plots.draw(found, tmp_path)
    assert [path.name for path in drawn] == ["performance.svg", "growth.svg", "storms.svg"]
    for path in drawn:
        text = path.read_text()
        assert text.startswith("<?xml")
        assert not re.search(r" $", text, re.MULTILINE)


def test_numbers_have_as_many_digits_as_one_may_believe() -> None:
    assert [report.number(x) for x in (123_456, 1234, 999.4, 12.345, 0.01234)] == [
        *("123,000", "1,230", "999", "12.3", "0.0123")
    ]

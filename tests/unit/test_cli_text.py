"""What the command line shows of the log, and how."""

from __future__ import annotations

import json
import runpy
import sys
from typing import Any

import pytest
from socketio_recovery.cli.errors import place
from socketio_recovery.cli.log_lines import as_json, as_text, passes, read_line
from socketio_recovery.cli.progress import Progress
from socketio_recovery.cli.tail import since
from socketio_recovery.cli.text import decoded, duration, printable, shortened, size, table
from socketio_recovery.entries import EVENT, control_head, event_head
from socketio_recovery.packets import JsonCodec


def item(head: str, *values: bytes) -> Any:
    fields = [b"epoch", b"5", b"head", head.encode()]
    for i, value in enumerate(values):
        fields += [b"data" if not i else b"%d" % (i - 1), value]
    return b"1700000000123-7", fields


def event(*arguments: Any, rooms: Any = ()) -> Any:
    payload = JsonCodec().encode(arguments)
    return item(event_head("/", rooms, [], payload), payload.data, *payload.attachments)


def test_an_event() -> None:
    line = read_line(event("news", {"a": [b"\x01\x02"]}, "text", rooms=["r", 5]))
    assert as_text(line).endswith('  #7  event       /  to r, 5  news  {"a": [<2 bytes 0102>]} "text"')
    found = json.loads(as_json(line))
    assert found == {
        "id": "1700000000123-7",
        "epoch": 5,
        "n": 7,
        "ms": 1700000000123,
        "kind": EVENT,
        "namespace": "/",
        "rooms": ["r", 5],
        "skip": [],
        "volatile": False,
        "event": "news",
        "args": [{"a": [{"base64": "AQI="}]}, "text"],
    }


def test_transports_are_left_out() -> None:
    line = read_line(item(control_head("evict", "/", "sid", "node", "transport-secret")))
    assert "sid" in as_text(line)
    assert "transport-secret" not in as_text(line) + as_json(line)


def test_data_is_shortened_and_its_size_is_said() -> None:
    text = as_text(read_line(event("e", "x" * 5000)), width=20)
    assert text.endswith('e  "xxxxxxxxxxxxxxxx...  (5.0 kB)')


def test_data_that_is_nested_too_deeply() -> None:
    value: Any = []
    for _ in range(400):
        value = [value]
    line = read_line(event("e", value))._replace(arguments=["e", deep()])
    assert "nested too deeply" in as_text(line)
    assert json.loads(as_json(line))["problem"].startswith("nested too deeply")


def deep() -> Any:
    value: Any = []
    for _ in range(5000):
        value = [value]
    return value


@pytest.mark.parametrize("fields", [[b"x", b"y"], [b"epoch", b"x"], [b"epoch", b"1", b"head", b"{}"], [b"epoch", b"1"]])
def test_what_can_not_be_read(fields: list[bytes]) -> None:
    line = read_line((b"5-1", fields))
    assert "can't be read" in as_text(line)
    assert json.loads(as_json(line))["problem"]


def test_filters() -> None:
    line = read_line(event("news", rooms=["r", 5]))
    assert passes(line, [], [], [], [])
    assert passes(line, ["event"], ["/"], ["5"], ["news"])
    refused: list[list[list[str]]] = [
        [["enter"], [], [], []],
        [[], ["/x"], [], []],
        [[], [], ["q"], []],
        [[], [], [], ["olds"]],
    ]
    for filters in refused:
        assert not passes(line, *filters)


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("a\x1b[2J\u202e\x9b房\n") == "a\\x1b[2J\\u202e\\x9b房\\n"
    assert decoded(b"\xff\x1b") == "\\xff\\x1b"
    assert decoded(None) == ""


def test_numbers() -> None:
    assert [duration(s) for s in (0, 119, 120, 7200, 200_000)] == ["0 s", "119 s", "2.0 min", "2.0 h", "2.3 d"]
    assert [size(n) for n in (999, 1000, 2_500_000)] == ["999 bytes", "1.0 kB", "2.5 MB"]
    assert shortened("abcdef", 5) == "ab..."
    assert shortened("abcdef", 0) == "abcdef"
    assert table(("A", "BB"), [("ccc", "d")]) == "A    BB\nccc  d"
    assert [since(text) for text in ("90", "90s", "5m", "2h", "1d", "100ms")] == [90, 90, 300, 7200, 86400, 0.1]


def test_a_url_without_secrets() -> None:
    assert place("redis://user:p@ss@host:1/2") == "redis://host:1/2"
    assert place("redis+sentinel://:pw@a:1,b:2/0/name") == "redis+sentinel://a:1,b:2/0/name"
    assert place("unix:///tmp/redis.sock?password=pw") == "unix:///tmp/redis.sock"


def test_progress_is_shown_to_those_who_watch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for watched in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda watched=watched: watched)
        with Progress("sessions", 70_000) as progress:
            for _ in range(3):
                progress.add(6000)
        said = capsys.readouterr().err
        assert ("12,000 sessions so far; the database has 70,000 keys" in said) is watched
        assert said.endswith("\r\x1b[K") is watched


def test_the_module_can_be_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["socketio_recovery", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("socketio_recovery", run_name="__main__")
    assert end.value.code == 0
    assert "exit codes" in capsys.readouterr().out

"""May a client go on, and from where? Each refusal, as a property of the rule itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio_recovery.continuity import (
    ASKS,
    Request,
    Resumption,
    Start,
    can_recover,
    requested,
    resume,
    seen_by,
    start_of,
)
from socketio_recovery.entries import DISCONNECT, Offset, Position
from socketio_recovery.membership import replay
from socketio_recovery.reasons import Outcome
from socketio_recovery.session_record import Pid, Record, Refused, read_claim

from tests.support.past import Past, pasts
from tests.support.twin import rooms_after

EPOCH = 5000
PID = Pid.new("sid")


def record(birth: int = 10, sent: int = 20, confirmed: int = 50, last: int = 90, **more: Any) -> Record:
    values = {"floor": 0, "seen": True, "data": {}, "stays": [], **more}
    return Record(last=Position(EPOCH, last), ms=0, claims=1, birth=birth, confirmed=confirmed, sent=sent, **values)


def at(n: int, epoch: int = EPOCH, ms: int = 0) -> Offset:
    return Offset(Position(epoch, n), ms)


numbers = st.integers(0, 200)
times = st.integers(1, 2**40)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A record as this library writes it: birth <= sent <= confirmed <= last. The log may begin anywhere."""
    birth, sent, confirmed, last = sorted(draw(st.tuples(numbers, numbers, numbers, numbers)))
    return record(birth, sent, confirmed, last, floor=draw(st.integers(0, last)), seen=draw(st.booleans()))


# -- does the client ask for a session --------------------------------------------------------------


@given(st.none() | st.booleans() | st.text() | st.lists(st.text()) | st.dictionaries(st.sampled_from("ab"), st.text()))
def test_who_shows_no_pid_is_new(auth: Any) -> None:
    assert requested(auth) == (Request(outcome=Outcome.NEW), auth)


@given(st.text() | st.integers() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()), st.booleans())
def test_a_pid_of_another_form_is_the_applications(pid: Any, offset: bool) -> None:
    auth = {"pid": pid, "user": "ann", **({"offset": "1-2"} if offset else {})}
    if Pid.parse(pid) is None:
        assert requested(auth) == (Request(outcome=Outcome.MALFORMED), auth)


@given(st.text() | st.integers() | st.booleans() | st.lists(st.text()))
def test_an_offset_of_another_form_is_malformed(offset: Any) -> None:
    request, rest = requested({"pid": str(PID), "offset": offset, "user": "ann"})
    if offset != "" and Offset.parse(offset) is None:
        assert request == Request(outcome=Outcome.MALFORMED)
    assert rest == {"user": "ann"}


@given(st.none() | st.builds(at, numbers, st.integers(0, 2**40), st.integers(0, 2**40)))
def test_a_request_is_taken_out_of_what_the_application_sees(offset: Offset | None) -> None:
    auth = {"pid": str(PID), "user": "ann", **({"offset": str(offset)} if offset else {})}
    assert requested(auth) == (Request(PID, offset), {"user": "ann"})
    assert requested({key: value for key, value in auth.items() if key != "user"}) == (Request(PID, offset), None)


@pytest.mark.parametrize("offset", [None, ""])
def test_an_empty_offset_is_none(offset: Any) -> None:
    """Clients in Dart send ``null`` until they have one."""
    assert requested({"pid": str(PID), "offset": offset}) == (Request(PID, None), None)


@given(st.booleans(), st.sampled_from([None, "x", str(PID)]), st.sampled_from([None, "x", "1-2"]), st.booleans())
def test_what_a_client_asks_is_taken_out(asks: bool, pid: Any, offset: Any, more: bool) -> None:
    """And nothing else changes."""
    auth = {"pid": pid, "offset": offset, "user": "ann"} if more else {"pid": pid, "offset": offset}
    request, rest = requested(auth)
    assert requested({"recovery": asks, **auth}) == (request._replace(asks=asks), rest)
    assert requested({"recovery": asks}) == (Request(asks=asks), None)


@pytest.mark.parametrize("word", [1, 0, None, "true", "1", [True], {}])
def test_a_word_that_is_no_bool_is_the_applications(word: Any) -> None:
    assert requested({"recovery": word, "user": "ann"}) == (Request(), {"recovery": word, "user": "ann"})
    assert requested({"recovery": word, "pid": str(PID)}) == (Request(PID), {"recovery": word})


# -- can the client use recovery --------------------------------------------------------------------

JS = "EIO=4&transport=websocket"
DEFLATE = "permessage-deflate; client_max_window_bits"


def environ(agent: str = "", query: str = JS, extensions: str = "") -> dict[str, str]:
    headers = {"HTTP_USER_AGENT": agent, "QUERY_STRING": query, "HTTP_SEC_WEBSOCKET_EXTENSIONS": extensions}
    return {name: value for name, value in headers.items() if value}


@pytest.mark.parametrize(
    "known",
    [
        environ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        environ(
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) demo/1.0 "
            "Chrome/126.0.6478.127 Electron/31.2.0 Safari/537.36"
        ),
        environ("Mozilla/5.0 (linux) AppleWebKit/537.36 (KHTML, like Gecko) jsdom/24.1.0"),
        environ("node-XMLHttpRequest", "EIO=4&transport=polling&t=8w0dthy0"),  # Node.js, Bun and Deno: polling
        environ("node", "EIO=4&transport=polling&t=8w0g8c19"),  # Node.js: fetch, and its own WebSocket
        environ("undici"),
        environ("Bun/1.4.5", "EIO=4&transport=polling&t=8w2ktbtm"),
        environ("Deno/2.9.6"),
        environ(extensions=DEFLATE),  # Node.js and Bun: "ws"
        environ(query="token=x&" + JS, extensions=DEFLATE),
    ],
)
def test_javascript_clients_can_recover(known: dict[str, str]) -> None:
    assert can_recover(known)


OTHERS = [
    environ("Python/3.11 aiohttp/3.10.5", "transport=polling&EIO=4"),
    environ("python-requests/2.32.3", "transport=polling&EIO=4&t=1721900000.1"),
    environ(query="transport=websocket&EIO=4"),  # Python: websocket-client
    environ("Dart/3.4 (dart:io)", extensions=DEFLATE),
    environ("okhttp/4.12.0"),  # Java, Kotlin, React Native on Android
    environ("demo/1 CFNetwork/1496.0.7 Darwin/23.5.0", "transport=polling&b64=1&EIO=4"),  # Swift by polling
    environ(query="transport=websocket&EIO=4", extensions=DEFLATE + "; server_no_context_takeover"),  # Swift
    environ(),  # C#, Rust
    environ("Go-http-client/1.1"),
    environ("WebSocket++/0.8.2"),  # C++
    environ("UnityPlayer/2022.3.20f1 (UnityWebRequest/1.0, libcurl/8.5.0-DEV)"),
    environ("axios/1.7.2 Mozilla/5.0"),
    environ("nodejs"),
    environ(query="x=1", extensions=DEFLATE),
    environ(query="transport=websocket", extensions=DEFLATE),
    environ(query="EIO=4", extensions=DEFLATE),
    {},
]


@pytest.mark.parametrize("other", OTHERS)
def test_other_clients_have_to_ask(other: dict[str, str]) -> None:
    query = other.get("QUERY_STRING", "")
    assert not can_recover(other)
    assert can_recover({**other, ASKS: True})
    for word in ("1", "true"):
        assert can_recover({**other, "QUERY_STRING": f"recovery={word}&{query}"})
        assert can_recover({**other, "QUERY_STRING": f"{query}&recovery={word}"})


def test_who_declines_gets_none() -> None:
    browser = environ("Mozilla/5.0")
    assert not can_recover({**browser, ASKS: False})
    for word in ("0", "false"):
        assert not can_recover({**browser, "QUERY_STRING": f"recovery={word}&{JS}"})


@pytest.mark.parametrize("word", ["", "2", "10", "yes", "True", "1;"])
def test_other_words_say_nothing(word: str) -> None:
    for name in ("recovery", "xrecovery", "recovery1"):
        assert can_recover(environ("Mozilla/5.0", f"{name}={word}&{JS}"))
        assert not can_recover(environ("okhttp/4.12.0", f"{name}={word}&{JS}"))
    assert not can_recover(environ("okhttp/4.12.0", f"a=recovery=1&{JS}"))


@pytest.mark.parametrize("asks", [True, False])
def test_the_auth_data_is_asked_before_the_query(asks: bool) -> None:
    """The query is the transport's; each namespace has auth data of its own."""
    assert can_recover({"QUERY_STRING": f"recovery={int(not asks)}", ASKS: asks}) is asks


def test_an_applications_rule_is_given_what_the_client_asks() -> None:
    found = environ("okhttp/4.12.0")
    assert Request(asks=True).environ(found) == {**found, ASKS: True}
    assert Request().environ(found) == {**found, ASKS: None}
    assert ASKS not in found


# -- the claim --------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.EXPIRED, Outcome.EPOCH])
def test_what_the_script_refuses_is_refused(outcome: Outcome) -> None:
    assert read_claim([outcome.encode(), b"5000", b"90"]) == Refused(outcome)


def reply(**fields: Any) -> list[Any]:
    full = {"claims": 2, "birth": 10, "confirmed": 50, "sent": 20, "data": b'{"a":1}', 'r:"red"': 12, "g:30:7": 20}
    flat: list[Any] = [b"ok", b"5000", b"90", b"123", b"7", b"1"]
    for name, value in {**full, **fields}.items():
        if value is not None:
            flat += [name.encode(), value if isinstance(value, bytes) else str(value).encode()]
    return flat


def test_a_claim_is_read() -> None:
    found = read_claim(reply())
    assert isinstance(found, Record)
    assert found[:9] == (Position(EPOCH, 90), 123, 7, True, 2, 10, 50, 20, {"a": 1})
    assert set(found.stays) == {("red", 12, None), (7, 20, 30)}
    other = [*reply()[:5], 0, *reply()[6:]]
    assert read_claim(other) == found._replace(seen=False)


@given(
    field=st.sampled_from(["claims", "birth", "confirmed", "sent", "data", 'r:"red"', "g:30:7"]),
    value=st.none() | st.binary(max_size=8),
)
def test_a_record_that_something_else_wrote_is_damaged_or_read(field: str, value: bytes | None) -> None:
    found = read_claim(reply(**{field: value}))
    if isinstance(found, Refused):
        assert found.outcome is Outcome.DAMAGED
        assert found.detail
    else:
        assert isinstance(found.data, dict)


@pytest.mark.parametrize("data", [b"[1]", b"null", b"1", b"{", b"\xff", b"[" * 100_000])
def test_data_that_is_no_dict_is_damaged(data: bytes) -> None:
    found = read_claim(reply(data=data))
    assert isinstance(found, Refused)
    assert found.outcome is Outcome.DAMAGED


# -- where it goes on -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "seen"),
    [
        (None, 10),
        (at(0), 10),  # an earlier session's
        (at(9), 10),
        (at(10), 10),
        (at(11), 11),
        (at(90), 90),
        (at(91), None),  # no event has had it
        (at(70, EPOCH - 1), 10),
        (at(10**9, EPOCH - 1), 10),
        (at(0, EPOCH + 1), None),
        (at(70, EPOCH + 1), None),
    ],
)
def test_what_a_client_has_seen(offset: Offset | None, seen: int | None) -> None:
    assert seen_by(record(), offset) == seen


@pytest.mark.parametrize(
    ("seen", "after"),
    [
        (10, 10),  # older than the last offset it was sent: it may have missed that one
        (19, 19),
        (20, 50),  # it has everything that was sent before the ping it answered
        (33, 50),
        (50, 50),
        (51, 51),  # it has seen more than is confirmed
        (90, 90),
    ],
)
def test_where_a_client_goes_on(seen: int, after: int) -> None:
    assert start_of(record(), at(seen)) == Start(after, seen)


@given(records(), st.integers(1, 100), st.integers(0, 3), st.integers(0, 2**40))
def test_an_offset_beyond_the_log_is_refused(r: Record, beyond: int, epochs: int, ms: int) -> None:
    """With a time it was handed out once, and the log has lost it. Without one, it may be anybody's invention."""
    offset = at(r.last.n + beyond if not epochs else beyond, EPOCH + epochs, ms)
    assert start_of(r, offset) is (Outcome.EPOCH if ms else Outcome.OFFSET)


@given(records(), st.none() | st.builds(at, numbers, st.integers(EPOCH - 2, EPOCH), st.integers(0, 2**40)))
def test_a_client_goes_on_where_nothing_that_it_missed_lies_behind(r: Record, offset: Offset | None) -> None:
    start = start_of(r, offset)
    if isinstance(start, Outcome):
        assert offset is None or offset.position > r.last or start in (Outcome.TRIMMED, Outcome.EPOCH)
        return
    assert r.birth <= start.seen <= start.after <= r.last.n
    assert start.after in (start.seen, r.confirmed)
    assert r.floor <= start.after
    if start.after != start.seen:
        assert r.sent <= start.seen <= r.confirmed


@given(records(), st.none() | st.builds(at, numbers, st.integers(EPOCH - 2, EPOCH)))
def test_a_client_goes_on_if_the_log_holds_all_that_it_missed(r: Record, offset: Offset | None) -> None:
    """Whether the log holds the entry at the client's offset is of no account for an offset without a time."""
    if offset is not None and offset.position > r.last:
        return
    whole = start_of(r._replace(floor=0), offset)
    assert isinstance(whole, Start)
    assert start_of(r, offset) == (whole if whole.after >= r.floor else Outcome.TRIMMED)


@given(
    sent=st.lists(st.booleans(), max_size=40),
    pinged=st.integers(0, 40),
    received=st.integers(0, 40),
    birth=st.integers(0, 20),
)
def test_a_client_never_goes_on_after_something_it_missed(
    sent: list[bool], pinged: int, received: int, birth: int
) -> None:
    """``sent``: for each entry after birth, whether it was for the client."""
    pinged, received = min(pinged, len(sent)), min(received, len(sent))
    received = max(received, pinged)  # the ping was answered: what was queued before it has arrived

    def last_offset(upto: int) -> int:
        return max((birth + i for i in range(1, upto + 1) if sent[i - 1]), default=birth)

    start = start_of(record(birth, last_offset(pinged), birth + pinged, birth + len(sent)), at(last_offset(received)))
    assert isinstance(start, Start)
    missed = [birth + i for i in range(received + 1, len(sent) + 1) if sent[i - 1]]
    doubled = [birth + i for i in range(1, received + 1) if sent[i - 1]]
    assert all(start.after < n for n in missed)
    assert all(start.after >= n for n in doubled)


@given(records(), numbers, times)
def test_an_offset_that_nothing_confirms_must_be_that_of_an_entry_of_the_log(r: Record, n: int, ms: int) -> None:
    """The log lost its tail and grew again: the number may be there, the event that the client saw is not."""
    offset = at(n, ms=ms)
    start, without_time = start_of(r, offset), start_of(r, at(n))
    if n > r.last.n:
        assert start is Outcome.EPOCH
    elif n <= max(r.confirmed, r.birth - 1) or r.seen:
        assert start == without_time
    else:
        assert start is (Outcome.TRIMMED if n <= r.floor else Outcome.EPOCH)


# -- the last look ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("disconnected_at", "goes_on"), [(80, True), (90, True), (91, False), (99, False)])
def test_a_session_that_was_disconnected_since_it_was_claimed_is_unknown(disconnected_at: int, goes_on: bool) -> None:
    """What came before the claim is in the record."""
    past = Past()
    for n in range(1, 101):
        past.add(DISCONNECT if n == disconnected_at else "epoch", "/").sid = "s1"
    found = resume(Start(50, 50), record(), past.window(), "/", "s1")
    assert isinstance(found, Resumption) == goes_on
    assert goes_on or found is Outcome.UNKNOWN


@given(past=pasts(), data=st.data())
def test_who_goes_on_is_in_the_rooms_of_its_twin_and_misses_what_it_got(past: Past, data: st.DataObject) -> None:
    (namespace, sid), twin = data.draw(st.sampled_from(list(past.twins.items())))
    end = len(past.entries)
    claimed = data.draw(st.integers(0, end))
    after = data.draw(st.integers(0, claimed))
    stays = [stay for stay in twin.all_stays if stay.entered <= claimed]
    stays = [stay._replace(left=None) if stay.left and stay.left > claimed else stay for stay in stays]
    if twin.ended is not None and twin.ended <= claimed:
        return  # nobody can claim it
    r = record(birth=0, sent=0, confirmed=0, last=claimed, stays=stays)
    found = resume(Start(after, after), r, past.window(), namespace, sid)
    if twin.ended is not None:
        assert found is Outcome.UNKNOWN
        return
    assert isinstance(found, Resumption)
    assert found.rooms.keys() == twin.rooms.keys()
    assert found.rooms_then.keys() == rooms_after(twin, after).keys()
    missed = replay(past.window(), namespace, sid, found.rooms_then, after, 10**6, 10**9)
    assert [entry.n for entry in missed.events] == [n for n in twin.got if n > after]

"""Entries to stream fields and back, and to the packets that python-socketio itself would read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio.msgpack_packet import MsgPackPacket
from socketio.packet import BINARY_EVENT, EVENT, Packet
from socketio_recovery import codec
from socketio_recovery.codec import (
    JSON,
    MSGPACK,
    Codec,
    Entry,
    JsonCodec,
    MsgpackCodec,
    Payload,
    Position,
    callback_head,
    check_room,
    codec_for,
    control_head,
    converted,
    event_head,
    offset,
    parse_entry,
    parse_offset,
    parse_offset_ms,
    payload_fields,
)


class Spaced:
    """A ``json`` module that does as it likes with white space."""

    @staticmethod
    def dumps(obj: Any, **kwargs: Any) -> str:
        return "\n " + json.dumps(obj, indent=2, ensure_ascii=False) + " \n"

    @staticmethod
    def loads(s: str) -> Any:
        return json.loads(s)


JSON_CODECS = [JsonCodec(), JsonCodec(Spaced)]
PACK = MsgpackCodec(MsgPackPacket)
ALL: list[Codec] = [*JSON_CODECS, PACK]

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(
    scalars | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)
arguments = st.lists(values, max_size=4).map(lambda rest: ["event", *rest])
namespaces = st.sampled_from(["/", "/chat", "/a/b-c"])
offsets = st.none() | st.builds(Position, st.integers(0, 2**41), st.integers(0, 2**50)).map(str)
ids = st.none() | st.integers(0, 2**40)


def read(messages: Sequence[str | bytes]) -> Packet:
    """What python-socketio reads."""
    packet = Packet(encoded_packet=messages[0])
    for attachment in messages[1:]:
        packet.add_attachment(attachment)
    return packet


# -- to clients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", JSON_CODECS, ids=["json", "spaced"])
@given(arguments=arguments, namespace=namespaces, offset=offsets, id=ids)
def test_json_packets_are_what_python_socketio_reads(
    codec: JsonCodec, arguments: list[Any], namespace: str, offset: str | None, id: int | None
) -> None:
    payload = codec.encode(arguments)
    packet = read(codec.packets(namespace, payload, offset, id))
    assert packet.packet_type == (BINARY_EVENT if payload.attachments else EVENT)
    assert (packet.namespace or "/", packet.id) == (namespace, id)
    assert packet.data == arguments + ([] if offset is None else [offset])
    assert codec.decode(payload) == arguments


@given(arguments=arguments, namespace=namespaces, offset=offsets, id=ids)
def test_json_packets_are_what_python_socketio_writes(
    arguments: list[Any], namespace: str, offset: str | None, id: int | None
) -> None:
    codec = JsonCodec()
    written = Packet(EVENT, arguments + ([] if offset is None else [offset]), namespace=namespace, id=id).encode()
    expected = written if isinstance(written, list) else [written]
    assert codec.packets(namespace, codec.encode(arguments), offset, id) == expected


@given(arguments=arguments, namespace=namespaces, offset=offsets, id=ids)
def test_msgpack_packets_are_what_python_socketio_reads(
    arguments: list[Any], namespace: str, offset: str | None, id: int | None
) -> None:
    payload = PACK.encode(arguments)
    (message,) = PACK.packets(namespace, payload, offset, id)
    packet = MsgPackPacket(encoded_packet=message)
    assert (packet.packet_type, packet.namespace, packet.id) == (EVENT, namespace, id)
    assert packet.data == arguments + ([] if offset is None else [offset])
    fields = msgpack.loads(message)
    assert fields.keys() == {"type", "nsp", "data"} | ({"id"} if id is not None else set())
    assert PACK.decode(payload) == arguments


@pytest.mark.parametrize("count", [1, 15, 16, 17, 70_000])
def test_msgpack_events_of_any_number_of_arguments(count: int) -> None:
    payload = PACK.encode(["event", *range(count)])
    (message,) = PACK.packets("/", payload, "1-2", None)
    assert msgpack.loads(message)["data"] == ["event", *range(count), "1-2"]


def test_a_payload_serves_many_packets() -> None:
    for c in ALL:
        payload = c.encode(["e", {"x": b"bin"}])
        assert c.packets("/", payload, "1-2", None) == c.packets("/", payload, "1-2", None)
        assert c.packets("/", payload, "1-2", None) != c.packets("/", payload, "1-3", None)
        assert c.decode(payload) == ["e", {"x": b"bin"}]


def test_bytearrays_are_attachments() -> None:
    payload = JsonCodec().encode(["e", bytearray(b"abc")])
    assert payload.attachments == [b"abc"]
    assert all(type(a) is bytes for a in payload.attachments)


def test_what_can_not_be_serialised_is_a_type_error() -> None:
    for c in ALL:
        with pytest.raises(TypeError):
            c.encode(["e", object()])


def test_an_acknowledgement_may_be_empty() -> None:
    for c in ALL:
        assert c.decode(c.encode([])) == []
        assert c.decode(c.encode(())) == []


def test_data_that_looks_like_a_placeholder_is_left_alone() -> None:
    data = ["e", {"_placeholder": True, "num": 0}]
    assert JsonCodec().decode(JsonCodec().encode(data)) == data


# -- which codec ------------------------------------------------------------------------------------


def test_the_codec_of_a_server() -> None:
    default = codec_for(Packet, Spaced())
    assert isinstance(default, JsonCodec)
    assert isinstance(codec_for(type("Mine", (Packet,), {}), Spaced()), JsonCodec)
    assert isinstance(codec_for(MsgPackPacket, json), MsgpackCodec)


def test_msgpack_extensions_of_the_application() -> None:
    packet_class = MsgPackPacket.configure(
        dumps_default=lambda value: msgpack.ExtType(1, str(value).encode()),
        ext_hook=lambda code, data: complex(data.decode()),
    )
    c = codec_for(packet_class, json)
    payload = c.encode(["e", 1 + 2j])
    assert c.decode(payload) == ["e", 1 + 2j]
    (message,) = c.packets("/", payload, None, None)
    assert packet_class(encoded_packet=message).data == ["e", 1 + 2j]


class Custom(Packet):  # type: ignore[misc]
    """A wire format of the application's own."""

    uses_binary_events = False


@pytest.mark.parametrize("packet_class", [Custom, type("Other", (), {"__init__": lambda self: None})])
def test_a_serializer_of_the_applications_own_is_refused(packet_class: type) -> None:
    with pytest.raises(ValueError, match=packet_class.__name__):
        codec_for(packet_class, json)


@given(arguments=arguments)
def test_payloads_are_converted_between_formats(arguments: list[Any]) -> None:
    codecs: list[Codec] = [JsonCodec(), PACK]
    for source in codecs:
        for target in codecs:
            payload = source.encode(arguments)
            result = converted(payload, target, codecs)
            assert result.format == target.format
            assert target.decode(result) == arguments
            if source is target:
                assert result is payload


# -- offsets and rooms ------------------------------------------------------------------------------


@given(epoch=st.integers(0, 2**48 - 1), n=st.integers(0, 2**52 - 1), ms=st.integers(0, 2**48 - 1))
def test_an_offset_is_read_back(epoch: int, n: int, ms: int) -> None:
    position = Position(epoch, n)
    assert parse_offset(offset(position, ms)) == position
    assert parse_offset_ms(offset(position, ms)) == ms


@pytest.mark.parametrize(
    "text",
    [
        None,
        0,
        7.5,
        True,
        b"1-2",
        ["1-2"],
        {},
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1-2-",
        "1-2-3-4",
        "1-2-" + "f" * 13,
        "1--2",
        "+1-2",
        " 1-2",
        "1-2\n",
        "1-2 ",
        "0x1-2",
        "1_0-2",
        "A-B",
        "g-1",
        "\u0661-\u0662",
        "\uff11-2",
        "1-2\x00",
        "f" * 13 + "-1",
        "1-" + "f" * 14,
        "f" * 10**6,
    ],
)
def test_a_hostile_offset_is_none(text: Any) -> None:
    assert parse_offset(text) is None
    assert parse_offset_ms(text) == 0


def test_positions_are_in_the_order_of_the_log() -> None:
    assert Position(1, 10) < Position(1, 11) < Position(2, 0)


@pytest.mark.parametrize("room", [None, "", "red", 0, 7, -1, 10**30])
def test_rooms(room: Any) -> None:
    assert check_room(room) is room


@pytest.mark.parametrize("room", [True, 2.5, math.nan, b"red", ("red",), ["red"], {"red"}, {}, object(), 1j])
def test_what_can_not_be_a_room(room: Any) -> None:
    with pytest.raises(TypeError, match=type(room).__name__):
        check_room(room)


def test_rooms_that_are_equal_are_stored_alike() -> None:
    """Else Redis and the nodes would not agree on who is in ``1`` and ``True``."""
    equal = []
    for room in (1, True, 1.0):
        with suppress(TypeError):
            equal.append(codec.dump(check_room(room)))
    assert equal == ["1"]


# -- to and from the stream -------------------------------------------------------------------------


def stored(head: str, payload: Payload | None = None) -> Entry:
    """An entry as it comes back from Redis."""
    fields: list[str | bytes] = ["head", head, *(payload_fields(payload) if payload else ())]
    return parse_entry(5, 77, [f.encode() if isinstance(f, str) else f for f in fields])


rooms = st.lists(st.text(max_size=5) | st.integers(), max_size=3)
payloads = st.builds(
    lambda data, attachments, msgpack, arity: (
        Payload(MSGPACK, data, (), arity) if msgpack else Payload(JSON, b"[" + data + b"]", tuple(attachments), 0)
    ),
    st.text(st.characters(codec="utf-8"), max_size=20).map(str.encode),
    st.lists(st.binary(max_size=8), max_size=3),
    st.booleans(),
    st.integers(0, 20),
)


@given(
    namespace=st.text(min_size=1, max_size=8),
    rooms=rooms,
    skip=st.lists(st.text(max_size=5), max_size=3),
    payload=payloads,
    volatile=st.booleans(),
    callback=st.none() | st.tuples(st.text(max_size=5), st.integers(1, 2**40)),
)
def test_an_event_comes_back_as_it_was(
    namespace: str,
    rooms: list[Any],
    skip: list[str],
    payload: Payload,
    volatile: bool,
    callback: tuple[str, int] | None,
) -> None:
    entry = stored(event_head(namespace, rooms, skip, payload, volatile, callback), payload)
    assert (entry.kind, entry.n, entry.ms, entry.namespace) == (codec.EVENT, 5, 77, namespace)
    assert (list(entry.rooms), list(entry.skip)) == (rooms, skip)
    assert (entry.volatile, entry.callback) == (volatile, callback)
    assert entry.payload == payload
    assert entry.replayed == (not volatile and callback is None)


@given(node=st.text(max_size=8), id=st.integers(1, 2**40), payload=payloads)
def test_a_callback_comes_back_as_it_was(node: str, id: int, payload: Payload) -> None:
    entry = stored(callback_head(node, id, payload), payload)
    assert (entry.kind, entry.callback, entry.payload) == (codec.CALLBACK, (node, id), payload)
    assert not entry.replayed


ROOMS = ["red", "", "ünï\n\"'😀", "\ud800", 7]


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("kind", [codec.ENTER, codec.LEAVE])
def test_a_move_comes_back_as_it_was(kind: str, room: Any) -> None:
    entry = stored(control_head(kind, "/n", "s1", room))
    assert (entry.kind, entry.namespace, entry.sid, entry.room) == (kind, "/n", "s1", room)
    assert type(entry.room) is type(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_closing_comes_back_as_it_was(room: Any) -> None:
    entry = stored(control_head(codec.CLOSE, "/n", room))
    assert (entry.kind, entry.namespace, entry.room, entry.sid) == (codec.CLOSE, "/n", room, "")


def test_the_other_kinds_come_back_as_they_were() -> None:
    entry = stored(control_head(codec.DISCONNECT, "/n", "s1"))
    assert (entry.kind, entry.namespace, entry.sid) == (codec.DISCONNECT, "/n", "s1")
    entry = stored(control_head(codec.EVICT, "/n", "s1", "node", "transport"))
    assert (entry.kind, entry.namespace, entry.sid) == (codec.EVICT, "/n", "s1")
    assert (entry.node, entry.transport) == ("node", "transport")
    entry = stored('["epoch"]')
    assert (entry.kind, entry.n, entry.replayed) == (codec.EPOCH, 5, False)


@pytest.mark.parametrize(
    "fields",
    [
        [b"data", b"x"],
        [b"head", b'["a kind of a later version"]'],
        [b"head", b"not JSON"],
    ],
)
def test_what_this_library_did_not_write_is_an_error(fields: list[bytes]) -> None:
    with pytest.raises(ValueError):
        parse_entry(1, 1, fields)


def test_heads_are_short() -> None:
    payload = Payload(JSON, b"[]", (), 0)
    assert event_head("/", [], [], payload) == '["event","/"]'
    assert event_head("/", ["red"], [], payload) == '["event","/",["red"]]'

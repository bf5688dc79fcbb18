"""Packets: what clients receive is what python-socketio itself would read and write."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import engineio.packet
import engineio.payload
import msgpack
import pytest
from hypothesis import given
from socketio.msgpack_packet import MsgPackPacket
from socketio.packet import BINARY_EVENT, EVENT, Packet
from socketio_recovery.packets import Codec, JsonCodec, Message, MsgpackCodec, codec_for, converted

from .serialisations import ALL, JSON_CODECS, PACK, Spaced, arguments, ids, namespaces, offsets


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


# -- the messages that carry them ------------------------------------------------------------------

DATA: list[str | bytes] = [b"\x00\xffbinary", "text é😀", ""]


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("polling_first", [True, False])
def test_a_message_is_right_on_both_transports(data: str | bytes, polling_first: bool) -> None:
    message = Message(data)
    for _ in range(2):
        for polling in (polling_first, not polling_first):
            encoded = message.encode(b64=polling)
            assert encoded == engineio.packet.Packet(engineio.packet.MESSAGE, data).encode(b64=polling)
            if isinstance(data, bytes):
                assert encoded == ("b" + base64.b64encode(data).decode() if polling else data)
            else:
                assert encoded == "4" + data


def test_a_shared_message_in_a_polling_payload() -> None:
    messages = [Message(data) for data in DATA]
    for message in messages:
        message.encode()  # for a WebSocket
    encoded = engineio.payload.Payload(packets=messages).encode()
    packets = engineio.payload.Payload(encoded_payload=encoded).packets
    assert [packet.data for packet in packets] == DATA


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_json_are_refused(number: float) -> None:
    """Browsers can't parse them, and would disconnect each time the event is replayed."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        JsonCodec().encode(("e", {"n": number}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        JsonCodec().encode(("e", b"binary", number))

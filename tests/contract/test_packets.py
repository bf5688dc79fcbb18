"""Packets of python-socketio and python-engineio: what ``packets.py`` puts together itself, or overrides."""

from __future__ import annotations

import inspect
import json
from typing import Any

import engineio
import pytest
from engineio import packet as eio_packet
from engineio.packet import Packet as EngineIOPacket
from socketio import packet
from socketio.msgpack_packet import MsgPackPacket
from socketio.packet import Packet

from .upstream import relies_on, server

msgpack = pytest.importorskip("msgpack")


# -- Engine.IO ------------------------------------------------------------------------------------------


@relies_on("engineio.Packet.encode")
@pytest.mark.parametrize(
    ("data", "b64", "encoded"),
    [
        ("2[1]", False, "42[1]"),
        ("2[1]", True, "42[1]"),
        (b"\x00\x01", False, b"\x00\x01"),
        (b"\x00\x01", True, "bAAE="),
    ],
)
def test_a_message_is_its_text_after_a_4_or_its_bytes_or_base64_after_a_b(
    data: str | bytes, b64: bool, encoded: str | bytes
) -> None:
    """``Message.frame`` holds the same."""
    assert EngineIOPacket(eio_packet.MESSAGE, data).encode(b64=b64) == encoded


@relies_on("engineio.Packet.encode")
def test_a_packet_keeps_its_first_encoding_whatever_is_asked_for_later() -> None:
    """A binary packet that two transports share would reach the second in the form of the first.

    ``Message.encode`` keeps both. Once upstream does so, it is not needed any more.
    """
    shared = EngineIOPacket(eio_packet.MESSAGE, b"\x00\x01")
    assert shared.encode() == b"\x00\x01"
    assert shared.encode(b64=True) == b"\x00\x01"
    other = EngineIOPacket(eio_packet.MESSAGE, b"\x00\x01")
    assert other.encode(b64=True) == "bAAE="
    assert other.encode() == "bAAE="


def test_a_packet_knows_whether_its_data_is_binary() -> None:
    text, data = EngineIOPacket(eio_packet.MESSAGE, "text"), EngineIOPacket(eio_packet.MESSAGE, b"data")
    assert (text.binary, text.data, text.packet_type) == (False, "text", eio_packet.MESSAGE)
    assert (data.binary, data.data) == (True, b"data")


def test_the_numbers_of_the_packets_that_this_library_looks_at() -> None:
    assert (eio_packet.MESSAGE, eio_packet.PING) == (4, 2)
    assert (packet.CONNECT, packet.DISCONNECT, packet.ACK, packet.BINARY_ACK) == (0, 1, 3, 6)


# -- Socket.IO ------------------------------------------------------------------------------------------

NESTED: list[Any] = ["file", {"a": [b"one", 1]}, bytearray(b"two")]


@relies_on("socketio.Packet.data_is_binary")
@pytest.mark.parametrize(
    ("data", "binary"),
    [
        (NESTED, True),
        ([b""], True),
        ([{"a": {"b": [bytearray()]}}], True),
        (["text", 1, None, {"a": [1.5]}], False),
        ([], False),
        ([(b"in a tuple",)], False),
    ],
)
def test_binary_data_is_found_in_lists_and_dicts(data: Any, binary: bool) -> None:
    assert bool(Packet.data_is_binary(data)) is binary


@relies_on("socketio.Packet.deconstruct_binary", "socketio.Packet.reconstruct_binary")
def test_attachments_are_taken_out_of_data_and_put_back() -> None:
    """Both are class methods, so no packet has to be made. The data is not changed."""
    data, attachments = Packet.deconstruct_binary(NESTED)
    assert data == [
        "file",
        {"a": [{"_placeholder": True, "num": 0}, 1]},
        {"_placeholder": True, "num": 1},
    ]
    assert attachments == [b"one", bytearray(b"two")]
    assert Packet.data_is_binary(NESTED)
    assert Packet.reconstruct_binary(data, [b"one", b"two"]) == ["file", {"a": [b"one", 1]}, b"two"]


@relies_on("socketio.Packet.data_is_binary")
def test_data_is_binary_is_a_class_method_so_that_an_override_can_be_told() -> None:
    """``JsonCodec`` takes its fast way only with upstream's own."""

    class Own(Packet):  # type: ignore[misc]
        @classmethod
        def data_is_binary(cls, data: Any) -> bool:
            return False

    class Inherits(Packet):  # type: ignore[misc]
        pass

    assert inspect.ismethod(Packet.data_is_binary)
    assert Inherits.data_is_binary.__func__ is Packet.data_is_binary.__func__
    assert Own.data_is_binary.__func__ is not Packet.data_is_binary.__func__  # type: ignore[attr-defined]


@relies_on("socketio.AsyncServer().packet_class")
def test_the_json_module_is_an_attribute_of_the_packet_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it is the standard one, which ``JsonCodec`` compares ``dumps`` with."""
    assert server().packet_class is Packet
    assert Packet.json.dumps is json.dumps
    monkeypatch.setattr(Packet, "json", Packet.json)  # the option sets it for the whole process

    class Module:
        dumps, loads = staticmethod(json.dumps), staticmethod(json.loads)

    monkeypatch.setattr(EngineIOPacket, "json", EngineIOPacket.json)
    assert server(json=Module).packet_class.json is Module


@relies_on("socketio.AsyncServer().packet_class")
def test_the_serializer_option_chooses_the_packet_class() -> None:
    """``codec_for`` tells the two apart by ``uses_binary_events`` and ``dumps_default``."""
    assert server().packet_class.uses_binary_events is True
    assert not hasattr(Packet, "dumps_default")
    with_msgpack = server(serializer="msgpack").packet_class
    assert with_msgpack is MsgPackPacket
    assert issubclass(with_msgpack, Packet)
    assert with_msgpack.uses_binary_events is False
    assert with_msgpack.json is Packet.json

    class Own(Packet):  # type: ignore[misc]
        pass

    assert server(serializer=Own).packet_class is Own


@relies_on("socketio.AsyncServer().packet_class")
def test_msgpack_options_are_attributes_of_the_packet_class() -> None:
    """``MsgpackCodec`` packs arguments with the same ``dumps_default`` and ``ext_hook``."""
    assert (MsgPackPacket.dumps_default, MsgPackPacket.ext_hook) == (None, msgpack.ExtType)

    def dumps_default(value: Any) -> Any:
        return str(value)

    def ext_hook(code: int, data: bytes) -> Any:
        return code

    configured = MsgPackPacket.configure(dumps_default=dumps_default, ext_hook=ext_hook)
    assert issubclass(configured, MsgPackPacket)
    assert (configured.dumps_default, configured.ext_hook) == (dumps_default, ext_hook)


@relies_on("socketio.AsyncServer().packet_class")
def test_a_msgpack_packet_is_one_map() -> None:
    """``MsgpackCodec.packets`` writes the same, piece by piece."""
    event = MsgPackPacket(packet.EVENT, ["news", b"\x00"], "/chat", id=7)
    assert msgpack.unpackb(event.encode()) == {"type": 2, "nsp": "/chat", "id": 7, "data": ["news", b"\x00"]}
    assert "id" not in msgpack.unpackb(MsgPackPacket(packet.EVENT, ["news"], "/").encode())
    greeting = MsgPackPacket(packet.CONNECT, {"sid": "a"}, namespace="/").encode()
    assert isinstance(greeting, bytes)


def test_a_text_packet_is_type_attachments_namespace_id_and_data() -> None:
    """``JsonCodec.packets`` writes the same, piece by piece."""
    assert Packet(packet.EVENT, ["news", 1], "/", id=7).encode() == '27["news",1]'
    assert Packet(packet.EVENT, ["news", 1], "/chat").encode() == '2/chat,["news",1]'
    assert Packet(packet.EVENT, ["news", b"\x00"], "/chat", id=7).encode() == [
        '51-/chat,7["news",{"_placeholder":true,"num":0}]',
        b"\x00",
    ]


def test_the_payload_of_a_poll_encodes_its_packets_for_base64() -> None:
    """So ``Message.encode`` is asked for it with ``b64=True``."""
    asked = []

    class Message(EngineIOPacket):  # type: ignore[misc]
        def encode(self, b64: bool = False) -> Any:
            asked.append(b64)
            return super().encode(b64=b64)

    assert engineio.payload.Payload([Message(eio_packet.MESSAGE, b"\x00")]).encode() == "bAA=="
    assert asked == [True]

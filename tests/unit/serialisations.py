"""Serialisations of clients, and arguments to serialise with them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from socketio.msgpack_packet import MsgPackPacket
from socketio_recovery.entries import Position
from socketio_recovery.packets import Codec, JsonCodec, MsgpackCodec


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

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)
arguments = st.lists(values, max_size=4).map(lambda rest: ["event", *rest])
namespaces = st.sampled_from(["/", "/chat", "/a/b-c"])
offsets = st.none() | st.builds(Position, st.integers(0, 2**41), st.integers(0, 2**50)).map(str)
ids = st.none() | st.integers(0, 2**40)

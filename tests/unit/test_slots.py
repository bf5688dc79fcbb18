"""Slots of Redis Cluster."""

from __future__ import annotations

from typing import Any

import pytest
from socketio_recovery.redis.keys import Keys
from socketio_recovery.redis.slots import SLOTS, masters, slot_of


@pytest.mark.parametrize(
    ("key", "same"),
    [
        ("{user1000}.following", "user1000"),
        ("foo{bar}{zap}", "bar"),
        ("foo{{bar}}zap", "{bar"),
        ("{socketio}:session:x{y}", "socketio"),
    ],
)
def test_keys_with_the_same_hash_tag_have_the_same_slot(key: str, same: str) -> None:
    assert slot_of(key) == slot_of(same)


@pytest.mark.parametrize("key", ["foo{}{bar}", "foo{bar", "}foo{", "{}", "é"])
def test_without_a_hash_tag_the_whole_key_counts(key: str) -> None:
    assert slot_of(key) != slot_of(key + "x")


def test_the_slot_is_that_of_the_specification() -> None:
    """The specification gives the CRC16 of this text: 0x31C3."""
    assert slot_of("123456789") == 0x31C3 % SLOTS


@pytest.mark.parametrize("channel", ["socketio", "a}b", "chat:{1}", "ü"])
def test_all_keys_of_a_channel_have_one_slot(channel: str) -> None:
    keys = Keys(channel)
    all_keys = [keys.log, keys.meta, keys.closes, keys.inbox, keys.session("s"), keys.producer("p"), keys.everyone("/")]
    assert len({slot_of(key) for key in all_keys}) == 1


REPLY: Any = [
    [0, 5460, [b"127.0.0.1", 30001, b"id", []], [b"127.0.0.1", 30004, b"id"]],
    [5461, 10922, [b"", 30002, b"id", []]],
    [10923, 16382, [None, 30003, b"id"], ["name", 30006]],
    [16383, 16383, [b"?", 30007, b"id"]],
]


def test_masters_are_read_from_the_reply_to_cluster_slots() -> None:
    found = masters(REPLY, "asked")
    assert found.of(0) == ("127.0.0.1", 30001)
    assert found.of(5460) == ("127.0.0.1", 30001)
    assert found.of(5461) == ("asked", 30002)  # a server that has no name for itself was asked
    assert found.of(16382) == ("asked", 30003)
    assert found.of(16383) == ("asked", 30007)
    assert found.servers == {
        *(("127.0.0.1", 30001), ("127.0.0.1", 30004), ("asked", 30002)),
        *(("asked", 30003), ("name", 30006), ("asked", 30007)),
    }


def test_a_slot_without_a_server_has_no_master() -> None:
    found = masters([REPLY[0], [5461, 10922]], "asked")
    assert found.of(5461) is None
    assert found.of(12000) is None

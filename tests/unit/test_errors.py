"""The exceptions say what happened and what to do; keys are those of one channel."""

from __future__ import annotations

import pytest
from socketio_recovery import (
    Fate,
    PublishAbandoned,
    PublishTimeout,
    RedisUnavailable,
    SessionGone,
    UnsupportedFormat,
)
from socketio_recovery.errors import RecordDamaged, ReplyTooLarge
from socketio_recovery.redis.format import Formats
from socketio_recovery.redis.keys import Keys


@pytest.mark.parametrize(
    ("fate", "advice"), [("withdrawn", "emit it again"), ("unknown", "keeps trying"), ("stored", "will be delivered")]
)
def test_a_timeout_says_what_became_of_the_entry(fate: str, advice: str) -> None:
    error = PublishTimeout(Fate(fate), 2.5)
    assert isinstance(error, TimeoutError)
    assert error.fate == fate
    assert "publish_timeout=2.5 s" in str(error)
    assert advice in str(error)


def test_an_entry_that_is_given_up_is_a_timeout_whose_fate_is_unknown() -> None:
    error = PublishAbandoned()
    assert isinstance(error, PublishTimeout)
    assert error.fate is Fate.UNKNOWN
    assert "lost its data" in str(error)
    assert "not sent again" in str(error)


def test_an_unavailable_redis_is_a_connection_error() -> None:
    assert isinstance(RedisUnavailable("gone"), ConnectionError)
    assert isinstance(ReplyTooLarge("too large"), RedisUnavailable)


def test_a_damaged_record_names_its_session() -> None:
    assert "s1" in str(RecordDamaged("s1"))


def test_a_session_that_is_gone_is_a_key_error() -> None:
    error = SessionGone("s1")
    assert isinstance(error, KeyError)
    assert "s1" in str(error)


@pytest.mark.parametrize(
    ("format", "known", "advice"),
    [
        (2, Formats(1, 1), "has format 2.* knows format 1: install the version that the other processes"),
        (1, Formats(3, 4), r"has format 1.* knows format 3 to 4: first run .* knows both 1 and 3 .*raise_format\(\)"),
    ],
)
def test_an_unknown_format_says_which_version_to_run(format: int, known: Formats, advice: str) -> None:
    assert not known.include(format)
    assert all(map(known.include, known))
    with pytest.raises(RuntimeError, match=advice):
        raise UnsupportedFormat(format, known)


def test_all_keys_of_a_channel_share_one_hash_tag() -> None:
    keys = Keys("chat")
    names = [keys.log, keys.meta, keys.closes, keys.closed, keys.owned, keys.producer("p"), keys.session("s1")]
    assert all(name.startswith("{chat}:") for name in names)
    assert len(set(names)) == len(names)


def test_text_without_a_utf8_form_is_no_sid() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        Keys("chat").session("\ud800")

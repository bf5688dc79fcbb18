"""The exceptions say what happened and what to do; keys are those of one channel."""

from __future__ import annotations

import pytest
from socketio_recovery import Fate, PublishTimeout, SessionGone
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


def test_a_session_that_is_gone_is_a_key_error() -> None:
    error = SessionGone("s1")
    assert isinstance(error, KeyError)
    assert "s1" in str(error)


def test_all_keys_of_a_channel_share_one_hash_tag() -> None:
    keys = Keys("chat")
    names = [keys.log, keys.meta, keys.closes, keys.owned, keys.producer("p"), keys.session("s1")]
    assert all(name.startswith("{chat}:") for name in names)
    assert len(set(names)) == len(names)


def test_text_without_a_utf8_form_is_no_sid() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        Keys("chat").session("\ud800")

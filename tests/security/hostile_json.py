"""Hypothesis strategies for JSON that a hostile client may send."""

from __future__ import annotations

import re

from hypothesis import strategies as st

#: Any string that JSON can hold, including lone surrogates.
TEXT = st.text(st.characters(codec=None, categories=None), max_size=40)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**97, 10**98)  # python-engineio accepts no longer ones
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
ANY_JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
SECRET = st.text("abcXYZ019-_", min_size=32, max_size=32)
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=130)
#: Keys of Redis, glob patterns, characters of paths and protocols: a sid becomes part of a key's name.
HOSTILE_SID = st.sampled_from(
    ["*", "?", "{socketio}:log", "..", "a\r\nFLUSHALL\r\n", "\x00", "%s", "${jndi:x}", "'", "log"]
)
#: Values that are almost a pid, or are a pid that no session has.
PID = (
    st.builds("{}.{}".format, PRINTABLE | HOSTILE_SID, SECRET)
    | st.builds("{}.{}".format, TEXT, TEXT)
    | st.builds(lambda sid, secret, more: f"{sid}.{secret}{more}", PRINTABLE, SECRET, TEXT)
    | ANY_JSON
    | st.integers(1000, 50_000).map(lambda n: "x" * n)
)
#: Values that are almost an offset, or are an offset that no event had.
OFFSET = (
    st.from_regex(re.compile(r"[0-9a-f]{1,14}-[0-9a-f]{1,15}\n?", re.ASCII), fullmatch=True)
    | st.from_regex(re.compile(r"[-+ 0-9a-fx.]{1,20}", re.ASCII), fullmatch=True)
    | ANY_JSON
)
AUTH = ANY_JSON | st.fixed_dictionaries({"pid": PID}, optional={"offset": OFFSET, "token": ANY_JSON, "": TEXT})
#: A number at the top level is left out: in a packet it would be an id, and not an ``auth``.
AUTH = AUTH.filter(lambda auth: not isinstance(auth, (int, float)) or isinstance(auth, bool))
#: What means something to this library, or to the application of the nodes under test. Hypothesis takes strings of the
#: source for its own, so it finds them now and then.
WORDS = {"recovery", "refuse", "slow", "raise", "enter", "greet"}
AUTH = AUTH.filter(lambda auth: not isinstance(auth, dict) or not auth.keys() & WORDS)

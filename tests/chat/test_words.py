"""The pages' words: the same in both languages."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import chain

from local.node_js import find_node_js
from tests.support.paths import ROOT

JS = ROOT / "chat" / "web" / "js"


def words(language: str) -> dict[str, str | list[str]]:
    node = find_node_js()
    assert node is not None
    script = f"import words from {json.dumps(str(JS / f'words.{language}.js'))}; console.log(JSON.stringify(words))"
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    found: dict[str, str | list[str]] = json.loads(done.stdout)
    return found


def holes(text: str | list[str]) -> set[str]:
    return set(re.findall(r"\{\w+\}", text if isinstance(text, str) else text[1]))


def test_both_languages_have_the_same_words() -> None:
    english, chinese = words("en"), words("zh")
    assert english.keys() == chinese.keys()
    assert {key for key in english if holes(english[key]) != holes(chinese[key])} == set()


def test_what_the_pages_ask_for_is_there() -> None:
    english = words("en")
    code = [path.read_text() for path in JS.glob("*.js")]
    asked = set(chain.from_iterable(re.findall(r"""\bt\("([a-z0-9-]+)\"""", text) for text in code))
    pages = [path.read_text() for path in JS.parent.glob("*.html")]
    asked |= set(chain.from_iterable(re.findall(r'data-t[a-z-]*="([a-z0-9-]+)"', text) for text in pages))
    assert asked > {"send", "rooms"}
    assert asked - english.keys() == set()
    # Those that are put together: t(`is-${...}`)
    starts = set(chain.from_iterable(re.findall(r"\bt\(`([a-z-]+-)\$", text) for text in code))
    unused = {key for key in english if key not in asked and not key.startswith(tuple(starts))}
    quoted = {key for key in unused if any(f'"{key}"' in text for text in code if "// English" not in text)}
    assert unused - quoted == set()

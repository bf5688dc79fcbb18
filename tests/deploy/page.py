"""What ``docs/deploying.md`` says: tests run the very configurations that the page shows."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "deploying.md"
#: The addresses of the nodes, and of the load balancer's port, in the examples of the page.
NODES = ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
PORT = "8080"


def blocks(heading: str, language: str) -> list[str]:
    """Returns the fenced blocks of one language in the section below a heading of any level."""
    section = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", _without_fences(), re.M | re.S)
    assert section is not None, f"{PAGE.name} has no section {heading!r}"
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text()[section.start() : section.end()], re.M | re.S)
    assert found, f"the section {heading!r} of {PAGE.name} has no block of {language}"
    return found


def _without_fences() -> str:
    """The page, with its fenced blocks blanked: a comment in a configuration looks like a heading."""
    return re.sub(r"^```.*?^```$", lambda block: re.sub(r"[^\n]", " ", block[0]), PAGE.read_text(), flags=re.M | re.S)


def replaced(text: str, replacements: dict[str, str]) -> str:
    """Replaces parts of a configuration. Each must be there."""
    for old, new in replacements.items():
        assert old in text, f"{old!r} is not in:\n{text}"
        text = text.replace(old, new)
    return text

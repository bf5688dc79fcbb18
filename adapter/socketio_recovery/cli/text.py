"""How the command line shows things.  No I/O.

What comes from Redis may hold anything, and a terminal obeys some of it. So only printable characters are shown.
"""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """Text without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def decoded(value: bytes | None) -> str:
    """Bytes from Redis as text that can be shown."""
    return printable((value or b"").decode(errors="backslashreplace"))


def shortened(text: str, width: int) -> str:
    """The beginning of a text; 0 for all of it."""
    return text if not width or len(text) <= width else text[: width - 3] + "..."


def duration(seconds: float) -> str:
    """``42 s``, ``5 min``, ``3.5 h``, ``2.1 d``"""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length * 2:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    """``120 bytes``, ``1.2 kB``, ``3.4 MB``"""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} bytes"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, the last one as wide as it is."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in (head, *rows)
    )

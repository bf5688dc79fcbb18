"""Draws deliveries over time, with the faults marked, as SVG. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from .check import drops_of
from .history import ClientHistory, Connected, FaultMark, Lost, Received

WIDTH, HEIGHT = 900, 220
LEFT, RIGHT, TOP, BOTTOM = 50, 40, 34, 26
#: How wide a bar is, in seconds.
BIN = 0.25


def plot(title: str, clients: Sequence[ClientHistory], marks: Sequence[FaultMark], began: float) -> str:
    """Draws one run.

    :param began: when the run began (seconds since 1970).
    :returns: SVG. Bars show events received per second, the line shows how many clients are connected, and faults are
        shaded.
    """
    received = [s.at - began for client in clients for s in client.steps if isinstance(s, Received)]
    last = max([BIN, *received, *(mark.end - began for mark in marks if mark.end)])
    bins = Counter(int(at / BIN) for at in received if at >= 0)
    most = max(bins.values(), default=1) / BIN

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at / last, 0), 1)

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    drops = sum(map(drops_of, clients))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="10" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="13" font-size="12" font-weight="bold">{escape(title)}</text>',
        f'<text x="{WIDTH - RIGHT}" y="13" text-anchor="end">{len(received)} events received by {len(clients)} '
        f"clients, {drops} drops; shaded: {len(marks)} faults</text>",
    ]
    label_from = 0.0
    for mark in marks:
        begin, end = x(mark.start - began), x((mark.end or began + last) - began)
        parts.append(
            f'<rect x="{begin:.1f}" y="{TOP}" width="{max(end - begin, 1):.1f}" height="{HEIGHT - TOP - BOTTOM}" '
            f'fill="#d33" fill-opacity="0.13"><title>{escape(mark.text)}</title></rect>'
        )
        if begin >= label_from:
            parts.append(f'<text x="{begin:.1f}" y="{TOP - 4}" font-size="9" fill="#a22">{escape(mark.text)}</text>')
            label_from = begin + 5.2 * len(mark.text) + 6
    width = max(x(BIN) - x(0) - 0.4, 0.4)
    for number, count in sorted(bins.items()):
        top = y(count / BIN / most)
        parts.append(
            f'<rect x="{x(number * BIN):.1f}" y="{top:.1f}" width="{width:.1f}" height="{y(0) - top:.1f}" fill="#69c"/>'
        )
    points = " ".join(f"{x(at):.1f},{y(share):.1f}" for at, share in _connected(clients, began, last))
    parts.append(f'<polyline points="{points}" fill="none" stroke="#283" stroke-width="1.2"/>')
    parts.append(f'<path d="M{LEFT} {TOP}V{y(0)}H{WIDTH - RIGHT}" fill="none" stroke="#333"/>')
    for share in (0.5, 1.0):
        parts.append(f'<text x="{LEFT - 4}" y="{y(share) + 4:.1f}" text-anchor="end">{most * share:.0f}/s</text>')
        parts.append(f'<text x="{WIDTH - RIGHT + 4}" y="{y(share) + 4:.1f}" fill="#283">{share:.0%}</text>')
    step = next(s for s in (1, 2, 5, 10, 30, 60, 300, 3600, 36000) if last / s <= 15 or s == 36000)
    for second in range(0, int(last) + 1, step):
        parts.append(f'<text x="{x(second):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{second} s</text>')
    return "\n".join([*parts, "</svg>", ""])


def _connected(clients: Sequence[ClientHistory], began: float, last: float) -> list[tuple[float, float]]:
    """Returns the share of connected clients over time, as the corners of a line: (time, share)."""
    changes: list[tuple[float, int]] = []
    for client in clients:
        connected = False
        for step in client.steps:
            if isinstance(step, (Connected, Lost)) and isinstance(step, Connected) != connected:
                connected = not connected
                changes.append((step.at - began, 1 if connected else -1))
    corners, count = [(0.0, sum(change for at, change in changes if at <= 0) / len(clients))], 0
    for at, change in sorted(changes):
        if at > 0:
            corners.append((at, count / len(clients)))
        count += change
        if at > 0:
            corners.append((at, count / len(clients)))
    return [*corners, (last, count / len(clients))]

"""What was measured, as tables and plots. No measuring here."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .processes import TITLES, Kind

#: Colours of the contestants.
COLOURS: dict[str, str] = {"recovery": "#2a78d6", "redis": "#b0483a", "node": "#4d8a3d", "bare": "#8a8a8a"}
LINES = ("#2a78d6", "#b0483a", "#4d8a3d")


def number(value: float) -> str:
    """With as many digits as one may believe."""
    if value >= 1000:
        digits = 2 - math.floor(math.log10(value))
        return f"{round(value, digits):,.0f}"
    return f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """The median, and the least and most."""
    middle = number(statistics.median(values))
    return middle if len(values) < 2 else f"{middle} ({number(min(values))} to {number(max(values))})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round, so that a slow moment of the machine hits both."""
    return [a / b for a, b in zip(ours, theirs, strict=True) if b]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def comparison(results: dict[str, Any]) -> str:
    """The table of works: medians, and ratios with their spread."""
    rows = []
    for work in results["works"].values():
        ours = work["result"]["recovery"]
        for measure in ours:
            row = [f"{work['title']}: {measure}", spread(ours[measure])]
            for kind in ("redis", "node", "bare"):
                theirs = work["result"].get(kind, {}).get(measure)
                if not theirs:
                    row.append("")
                    continue
                found = ratios(ours[measure], theirs)
                text = number(statistics.median(theirs))
                if found:
                    text += f"; **{statistics.median(found):.2f}**"
                if len(found) > 1:
                    text += f" ({min(found):.2f} to {max(found):.2f})"
                row.append(text)
            rows.append(row)
    others = [f"{TITLES[kind]}; this ÷ that" for kind in ("redis", "node", "bare")]
    return table(["work", "this library", *others], rows)


def costs(results: dict[str, Any]) -> str:
    """Memory, idle clients, the limits."""
    found = results["costs"]
    rows = []
    idle = found["idle"]
    for measure in ("bytes per client", "cpu % per 1000 clients"):
        rows.append(
            [f"idle clients: {measure}", *(number(idle[kind][measure]) for kind in ("recovery", "redis", "node"))]
        )
    stored = found["stored"]
    ours, nodes = (number(stored[kind]["bytes per event"]) for kind in ("recovery", "node"))
    rows.append(["Redis: bytes per stored event", ours, "stores none", nodes])
    heartbeat = found["heartbeats"]
    rows.append(["a session: bytes in Redis", number(heartbeat["redis bytes"]), "has none", ""])
    rows.append(["a session's heartbeat: µs of its node", number(heartbeat["node µs"]), "has none", "has none"])
    rows.append(["a session's heartbeat: µs of Redis", number(heartbeat["redis µs"]), "has none", "has none"])
    rows.append(
        ["a node's window: bytes per event", number(found["window"]["bytes per event"]), "has none", "has none"]
    )
    return table(["", *(TITLES[kind] for kind in ("recovery", "redis", "node"))], rows)


def limits(results: dict[str, Any]) -> str:
    found = results["costs"]
    appended = found["appended"]
    share = ratios(appended["recovery"], appended["xadd"])
    rows = [
        ["entries/s stored by one node, 512 emits in flight", spread(appended["recovery"])],
        ["entries/s by pipelined `XADD` alone, one Python process", spread(appended["xadd"])],
        ["the first ÷ the second", spread(share)],
        ["events/s stored by two nodes while four read them all", number(found["capacity"]["events/s"])],
        ["µs of Redis's processor time for each of them", number(found["capacity"]["redis µs per event"])],
        ["deliveries/s that the load generator takes from a server that only writes", number(found["load"])],
    ]
    return table(["limit", "measured"], rows)


def killed(results: dict[str, Any]) -> str:
    measures = ["clients", "s", "cpu ms per client", "redis cpu ms per client", "redis calls per client"]
    rows = [[number(row[measure]) for measure in measures] for row in results["killed"]]
    return table(["clients", "seconds", "ms of CPU each", "ms of Redis each", "Redis scripts each"], rows)


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "machine": lambda results: str(results["machine"]),
    "comparison": comparison,
    "costs": costs,
    "limits": limits,
    "killed": killed,
}


def fill(page: str, results: dict[str, Any]) -> str:
    """The page with its measured parts anew: what is between ``<!-- name -->`` and ``<!-- / -->``."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{SECTIONS[match[2]](results)}\n\n{match[3]}"

    return re.sub(r"(<!-- (\w+) -->).*?(<!-- / -->)", part, page, flags=re.DOTALL)


# -- plots ------------------------------------------------------------------------------------------


def plots(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what was measured, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "socketio-recovery", "font.size": 9, "svg.fonttype": "none"})
    folder.mkdir(parents=True, exist_ok=True)
    return [_bars(results, folder / "performance.svg"), _curves(results, folder / "growth.svg")]


def _bars(results: dict[str, Any], path: Path) -> Path:
    from matplotlib import pyplot

    some = [work for work in results["works"].values() if len(work["result"]) > 1]
    figure, axes = pyplot.subplots(2, 4, figsize=(11, 5), layout="constrained")
    for axis, work in zip(axes.flat, some, strict=False):
        measure = next(iter(work["result"]["recovery"]))
        kinds: list[Kind] = list(work["result"])
        medians = [statistics.median(work["result"][kind][measure]) for kind in kinds]
        low = [m - min(work["result"][kind][measure]) for m, kind in zip(medians, kinds, strict=True)]
        high = [max(work["result"][kind][measure]) - m for m, kind in zip(medians, kinds, strict=True)]
        names = [TITLES[k].replace(" ", "\n", 1).replace("Redis", "Redis\n") for k in kinds]
        axis.bar(names, medians, color=[COLOURS[k] for k in kinds])
        axis.errorbar(range(len(kinds)), medians, yerr=[low, high], fmt="none", ecolor="black", capsize=3)
        axis.set_title(_wrapped(work["title"]), fontsize=9)
        axis.set_ylabel(measure)
        axis.tick_params(axis="x", labelsize=7)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes.flat)[len(some) :]:
        axis.set_visible(False)
    return _saved(figure, path)


def _curves(results: dict[str, Any], path: Path) -> Path:
    from matplotlib import pyplot

    curves = results["growth"]
    figure, axes = pyplot.subplots(2, 4, figsize=(11, 5), layout="constrained")
    for axis, curve in zip(axes.flat, curves, strict=False):
        for colour, (title, values) in zip(LINES, curve["lines"].items(), strict=False):
            medians = [statistics.median(some) for some in values]
            axis.plot(curve["xs"], medians, marker="o", markersize=3, color=colour, label=title)
            axis.fill_between(curve["xs"], list(map(min, values)), list(map(max, values)), color=colour, alpha=0.15)
        everything = [value for values in curve["lines"].values() for some in values for value in some]
        if curve["log"]:
            axis.set_xscale("log")
        if min(everything) > 0 and max(everything) > 20 * min(everything):
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        for part in (axis.xaxis, axis.yaxis):
            part.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
        axis.set_title(_wrapped(curve["title"]), fontsize=9)
        axis.set_xlabel(curve["x"])
        axis.set_ylabel(curve["y"])
        axis.legend(fontsize=7, frameon=False)
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes.flat)[len(curves) :]:
        axis.set_visible(False)
    return _saved(figure, path)


def _wrapped(text: str, width: int = 34) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.patch.set_facecolor("white")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    # matplotlib ends some lines with spaces
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path

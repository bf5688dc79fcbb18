"""Draws results as plots. Nothing is measured here."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from .processes import TITLES, Kind

#: The colours of the contestants, and of the lines of a curve.
COLOURS: dict[Kind, str] = {
    "recovery": "#2a78d6",
    "uvicorn": "#6ba3e5",
    "redis": "#b0483a",
    "redis-uvicorn": "#cc7d72",
    "node": "#4d8a3d",
    "bare": "#8a8a8a",
}
LINES = ("#2a78d6", "#b0483a", "#4d8a3d")


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draws the results that there are as SVG files in a folder, which is made if it does not exist.

    :returns: the paths of the files.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "socketio-recovery", "font.size": 9, "svg.fonttype": "none"})
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if any(len(work["result"]) > 1 for work in results["works"].values()):
        written.append(_bars(results, folder / "performance.svg"))
    if results["growth"]:
        written.append(_curves(results, folder / "growth.svg"))
    if results.get("storms"):
        written.append(_storms(results["storms"], folder / "storms.svg"))
    return written


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


def _storms(storms: dict[str, Any], path: Path) -> Path:
    """How many clients are back after how long: one plot for each storm, one line for each contestant."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(storms), figsize=(2.75 * len(storms), 2.9), layout="constrained", squeeze=False
    )
    for axis, storm in zip(axes.flat, storms.values(), strict=True):
        for setup, times in storm["times"].items():
            kind = next(kind for kind, title in TITLES.items() if title == setup.removesuffix(", tuned"))
            shares = [100 * (i + 1) / len(times) for i in range(len(times))]
            style = "-" if setup.endswith(", tuned") or kind == "node" else ":"
            axis.plot([1000 * time for time in times], shares, style, color=COLOURS[kind], label=setup)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
        axis.set_ylim(0, 100)
        axis.set_title(_wrapped(storm["title"], 30), fontsize=8)
        axis.set_xlabel("ms until a client is back")
        axis.grid(alpha=0.2)
        axis.legend(fontsize=6, frameon=False, loc="upper left")
        axis.spines[["top", "right"]].set_visible(False)
    axes.flat[0].set_ylabel("% of clients")
    return _saved(figure, path)


def _wrapped(text: str, width: int = 34) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.patch.set_facecolor("white")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    # matplotlib ends some lines with spaces, which would show up as errors in diffs.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path

"""Writes results as tables in Markdown. Nothing is measured here."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from .look_back import ratios as looked_back
from .processes import TITLES, Kind


def number(value: float) -> str:
    """Formats a number with three significant digits: the measurements are not more exact than that."""
    if value >= 1000:
        digits = 2 - math.floor(math.log10(value))
        return f"{round(value, digits):,.0f}"
    return f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Formats the median of some values, with the least and the greatest of them; a dash if there are none."""
    if not values:
        return "-"  # ratios to what was too small to be measured
    middle = number(statistics.median(values))
    return middle if len(values) < 2 else f"{middle} ({number(min(values))} to {number(max(values))})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divides round by round: a slow moment of the machine affects both sides of a round."""
    return [a / b for a, b in zip(ours, theirs, strict=True) if b]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


#: The lines of the comparison: this library's contestant, what the line says of it, and whom it is compared with.
COMPARED: dict[Kind, tuple[str, tuple[Kind, ...]]] = {
    "recovery": ("", ("redis", "node", "bare")),
    "uvicorn": (", on uvicorn", ("redis-uvicorn", "node", "bare")),
}


def comparison(results: dict[str, Any]) -> str:
    """The table of works: medians, and this library's ratios to the other contestants with their spread."""
    rows = []
    for work in results["works"].values():
        for kind, (where, others) in COMPARED.items():
            ours = work["result"].get(kind, {})
            for measure in ours:
                row = [f"{work['title']}{where}: {measure}", spread(ours[measure])]
                row += [_compared(ours[measure], work["result"].get(other, {}).get(measure)) for other in others]
                rows.append(row)
    columns = [f"{TITLES[kind]}; this ÷ that" for kind in COMPARED["recovery"][1]]
    return table(["work", "this library", *columns], rows)


def _compared(ours: Sequence[float], theirs: Sequence[float] | None) -> str:
    """Formats what another contestant reached, with the ratio to it; nothing if it did not run."""
    if not theirs:
        return ""
    found = ratios(ours, theirs)
    text = number(statistics.median(theirs))
    if found:
        text += f"; **{statistics.median(found):.2f}**"
    if len(found) > 1:
        text += f" ({min(found):.2f} to {max(found):.2f})"
    return text


def costs(results: dict[str, Any]) -> str:
    """The table of what idle clients, sessions and stored events cost."""
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
    """The table of how much a node, Redis and the receivers can take."""
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
    """The table of what it costs when a node is killed."""
    measures = ["clients", "s", "cpu ms per client", "redis cpu ms per client", "redis calls per client"]
    rows = [[number(row[measure]) for measure in measures] for row in results["killed"]]
    return table(["clients", "seconds", "ms of CPU each", "ms of Redis each", "Redis scripts each"], rows)


def look_back(results: dict[str, Any]) -> str:
    """The table of clients that come back to a node that no longer has in memory what they missed."""
    found = results["look_back"]
    rows = []
    for line in found["clients"]:
        who = "one client" if line["clients"] == 1 else f"{line['clients']} clients"
        for name, values in line["figures"].items():
            rows.append([f"{who}: {name}", spread(values), ""])
    for name, value in looked_back(found).items():
        aim = next((aim for part, aim in LOOK_BACK_AIMS.items() if part in name), "")
        rows.append([name, f"**{value:.2f}**", aim])
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found["outcomes"].items()))
    rows.append(["outcomes of all rounds", outcomes, "all recovered"])
    return table([f"{found['events']:,} events for others meanwhile", "measured", "aim"], rows)


def participants(results: dict[str, Any]) -> str:
    """The table of questions about participants, among few sessions and among many."""
    found = results["participants"]
    rows = []
    for name, (few, many) in found["figures"].items():
        share = statistics.median(many) / statistics.median(few)
        rows.append([name, spread(few), spread(many), f"**{share:.2f}**"])
    few, many = (f"among {count:,} sessions" for count in found["sessions"])
    return table(["question", few, many, "many ÷ few"], rows)


def partitions(results: dict[str, Any]) -> str:
    """The table of a log that is divided, and of a node that follows a part of it."""
    found = results["partitions"]
    titles = {"divided": "on as many servers", "followed": "on one server, a node follows one"}
    rows = []
    for part, title in titles.items():
        whole = next(iter(found[part].values()))
        for shards, figures in found[part].items():
            for name, values in figures.items():
                share = spread(ratios(values, whole[name]))
                count = "1 partition" if shards == "1" else f"{shards} partitions"
                rows.append([f"{count} {title}", name, spread(values), share])
    return table(["", "quantity", "measured", "÷ one partition"], rows)


def sync(results: dict[str, Any]) -> str:
    """The table of synchronous servers and scripts, with this library's ratios to ``RedisManager`` in the same mode."""
    rows = []
    for work in results["sync"].values():
        ours, theirs = work["result"]["recovery"], work["result"]["redis"]
        for measure in ours:
            found = ratios(ours[measure], theirs[measure])
            share = f"**{statistics.median(found):.2f}** ({min(found):.2f} to {max(found):.2f})" if found else ""
            rows.append([f"{work['title']}: {measure}", spread(ours[measure]), spread(theirs[measure]), share])
    return table(["work", "this library", "RedisManager", "this ÷ that"], rows)


def storms(results: dict[str, Any]) -> str:
    """The table of storms: what was measured with each contestant, and how long its clients were connecting."""
    rows = []
    for storm in results["storms"].values():
        for setup, found in storm["result"].items():
            times = storm["times"][setup]
            first, *more = (f"{quantity} {spread(values)}" for quantity, values in found.items())
            p50, p99 = (number(1000 * times[round(share * (len(times) - 1))]) for share in (0.5, 0.99))
            rows.append([storm["title"], setup, first, "; ".join(more), f"{p50} / {p99} ms"])
    return table(["storm", "contestant", "measured", "", "a client is back, p50 / p99"], rows)


#: What a look back may cost, by a part of the quantity's name.
LOOK_BACK_AIMS = {"p99": "at most 2", "many ÷ one": "at most 1.5", "MB above": "at most 32"}

#: What stands between the marks in ``docs/performance.md``, by the name in the mark.
SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "machine": lambda results: str(results["machine"]),
    "comparison": comparison,
    "costs": costs,
    "limits": limits,
    "killed": killed,
    "look_back": look_back,
    "participants": participants,
    "partitions": partitions,
    "sync": sync,
    "storms": storms,
}


#: Which results a section shows, if they do not have its name. Only a whole run says with what machine it was measured.
SHOWS = {"machine": "killed", "comparison": "works", "limits": "costs"}


def fill(page: str, results: dict[str, Any]) -> str:
    """Returns the page with what was measured: replaces what is between ``<!-- name -->`` and ``<!-- / -->``."""

    def part(match: re.Match[str]) -> str:
        if not results.get(SHOWS.get(match[2], match[2])):  # that was not measured
            return match[0]
        return f"{match[1]}\n\n{SECTIONS[match[2]](results)}\n\n{match[3]}"

    return re.sub(r"(<!-- (\w+) -->).*?(<!-- / -->)", part, page, flags=re.DOTALL)

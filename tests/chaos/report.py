"""Reports a run: figures, evidence, and how to repeat it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .check import KINDS, Violation
from .history import Connected, Received
from .plot import plot
from .run import Result

COLUMNS = (
    *("scenario", "faults", "events", "deliveries", "drops", "recovered", "new session, and why"),
    *KINDS[:5],
    "else",
    "seed",
)


def summary(result: Result) -> str:
    """Returns a line for the terminal."""
    verdict = result.verdict
    wrong = ", ".join(f"{kind}: {verdict.count(kind)}" for kind in KINDS if verdict.count(kind))
    recovered = verdict.outcomes["recovered"]
    return (
        f"{len(result.marks)} faults, {verdict.deliveries} deliveries, {verdict.drops} drops, {recovered} recovered, "
        f"{_refused(result) or 'none refused'}: {wrong.upper() if wrong else 'sound'}"
    )


def command(result: Result) -> str:
    """Returns the command that repeats the run. The seed decides what happens to whom and when.

    It can't decide how fast the machine is, so a repeated run may still differ.
    """
    return (
        f"python -m tests.chaos --scenario {result.scenario.name} --seed {result.seed} "
        f"--duration {result.duration:g} --clients {result.clients} --nodes {result.nodes} --server {result.server}"
    )


def figures(results: Sequence[Result]) -> str:
    """Returns a table of all runs, in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for result in results:
        verdict = result.verdict
        fates = ", ".join(f"{count} {fate}" for fate, count in result.fates.items() if fate != "stored")
        cells: list[object] = [
            *(result.scenario.name, len(result.marks), str(result.fates["stored"]) + (f" ({fates})" if fates else "")),
            *(verdict.deliveries, verdict.drops, verdict.outcomes["recovered"], _refused(result) or "0"),
            *map(verdict.count, KINDS[:5]),
            sum(map(verdict.count, KINDS[5:])),
            result.seed,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _refused(result: Result) -> str:
    """Returns how many clients got a new session though they had one, by reason."""
    reasons = {r: n for r, n in result.verdict.outcomes.items() if n and r not in ("recovered", "new")}
    return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))


def evidence(result: Result, violation: Violation) -> str:
    """Returns what explains a violation: the client's connections, the events in question, lines of the nodes' logs."""
    lines = [f"{violation.kind}: {violation.client} {violation.sid}: {violation.text}"]
    emits = {emit.id: emit for emit in result.history.emits}
    logged = {entry.id: entry for entry in result.history.log if entry.id}
    for id in re.findall(r"\b[a-z]\w*\.\d[\w.]*", violation.text)[:8]:
        said = f"emitted at {emits[id].start - result.began:.3f} s, {emits[id].fate}" if id in emits else "no emit"
        stored = f"entry {logged[id].n} at {logged[id].at - result.began:.3f} s" if id in logged else "not in the log"
        lines.append(f"  {id}: {said}; {stored}; to {logged[id].rooms if id in logged else '?'}")
    client = next((c for c in result.history.clients if c.name == violation.client), None)
    last: Received | None = None
    for step in client.steps if client else ():
        if isinstance(step, Received):
            last = step
            continue
        saw = f", last saw {last.id} ({last.position[0]}-{last.position[1]})" if last else ""
        what = f"connected as {step.sid}, recovered {step.recovered}" if isinstance(step, Connected) else "lost"
        lines.append(f"  {step.at - result.began:8.3f} s  {what}{saw}")
    for name, log in result.logs.items():
        words = [line for line in log.splitlines() if violation.sid and violation.sid in line][-12:]
        lines += [f"  {name}: {line[:300]}" for line in words]
    return "\n".join(lines) + "\n"


def write(folder: Path, results: Sequence[Result]) -> Path:
    """Writes the report: figures and plots, and for violations the evidence and the nodes' logs.

    :returns: the path of the report's main file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = [
        "# Chaos report\n",
        f"{len(results)} scenarios, {sum(len(r.marks) for r in results)} faults, "
        f"{sum(r.verdict.deliveries for r in results)} deliveries checked, on a machine with {os.cpu_count()} cores.\n",
        figures(results),
    ]
    for result in results:
        name = result.scenario.name
        (folder / f"{name}.svg").write_text(plot(name, result.history.clients, result.marks, result.began))
        text += [
            f"## {name}\n",
            f"{result.scenario.text} {result.duration:g} s of faults, {result.nodes} nodes and one without faults, "
            f"{result.clients} clients and two witnesses, on {result.server}. {summary(result)}.\n",
            f"![deliveries over time]({name}.svg)\n",
            f"`{command(result)}`\n",
        ]
        if result.verdict.violations:
            proof = "\n".join(evidence(result, violation) for violation in result.verdict.violations)
            (folder / f"{name}-evidence.txt").write_text(proof)
            for node, log in result.logs.items():
                (folder / f"{name}-{node}.log").write_text(log)
            text.append(f"Violations: [{name}-evidence.txt]({name}-evidence.txt)\n")
    page = folder / "report.md"
    page.write_text("\n".join(text))
    return page

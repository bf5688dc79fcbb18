"""``python -m tests.chaos``, or ``make chaos``: breaks a real cluster on purpose, and checks every event."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.node_servers import SERVERS
from tests.support.paths import ROOT

from . import report
from .run import Result, run
from .scenarios import SCENARIOS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenarios that the command line names.

    :returns: the exit status: 0 if all is sound, 1 if not, 2 if it can't run at all.
    """
    options = parse(arguments)
    if not (ROOT / "tests" / "node_modules" / "socket.io-client").exists():
        print("chaos: the official JavaScript client is not installed: `make chaos` does it", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_run(options))
    except FileNotFoundError as error:  # no Redis server
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = "\n".join(f"  {scenario.name:28}{scenario.text}" for scenario in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Breaks a real cluster on purpose, in every way the design has an answer to, and checks every\n"
        "event of every client: lost, doubled, out of order, wrongly recovered, wrongly refused.",
        epilog=f"scenarios:\n{names}\n\nexit status: 0 if all is sound, 1 if not, 2 if it can't run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        *("-s", "--scenario"),
        action="append",
        choices=SCENARIOS,
        metavar="NAME",
        help="run this one; may be given several times (default: all)",
    )
    parser.add_argument("--seed", type=int, help="of what happens to whom, and when (default: a random one)")
    parser.add_argument("--duration", type=_number(float, 0), default=20.0, help="seconds of faults (default: 20)")
    parser.add_argument(
        "--clients", type=_number(int, 1), default=30, help="clients, beside two witnesses (default: 30)"
    )
    parser.add_argument("--nodes", type=_number(int, 1), default=3, help="nodes, beside the witnesses' (default: 3)")
    parser.add_argument("--server", choices=SERVERS, default="aiohttp", help="what serves nodes (default: aiohttp)")
    parser.add_argument(
        "--report", type=Path, default=Path("chaos-report"), metavar="DIR", help="default: chaos-report"
    )
    return parser.parse_args(arguments)


def _number(kind: type[int] | type[float], least: float) -> type:
    def number(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return value

    number.__name__ = kind.__name__
    return number  # type: ignore[return-value]


async def _run(options: argparse.Namespace) -> int:
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    names = options.scenario or list(SCENARIOS)
    results: list[Result] = []
    failed = []
    for name in names:
        print(f"{name}: {SCENARIOS[name].text} (seed {seed})", flush=True)
        try:
            result = await run(
                SCENARIOS[name],
                seed=seed,
                duration=options.duration,
                clients=options.clients,
                nodes=options.nodes,
                server=options.server,
                say=lambda line: print("  " + line, flush=True),
            )
        except AssertionError as error:
            print(f"  the cluster did not get well again: {error}", flush=True)
            failed.append(name)
            continue
        results.append(result)
        print(f"  {report.summary(result)}", flush=True)
        if result.verdict.violations:
            failed.append(name)
            for violation in result.verdict.violations[:5]:
                print("  " + report.evidence(result, violation).replace("\n", "\n  ").rstrip(), flush=True)
            print(f"  to repeat it: {report.command(result)}", flush=True)
    page = report.write(options.report, results)
    print(f"\n{report.figures(results)}\nreport: {page}")
    if failed:
        print(f"NOT SOUND: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

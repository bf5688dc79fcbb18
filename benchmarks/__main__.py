"""Measures this library beside its peers: ``make bench``, or ``python -m benchmarks --help``.

The contestants take turns on the same machine, with the same Redis and the same load. The results that matter are the
ratios between them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import costs, growth, limits, look_back, participants, partitions, plots, report, storms, sync, works
from .bench import Bench
from .processes import HERE, TITLES, Kind

ROOT = HERE.parent
PAGE = ROOT / "docs" / "performance.md"
#: What uvicorn uses if it is installed.
UVICORN_USES = ("uvloop", "httptools", "websockets", "wsproto")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures this library beside its peers, on one Redis."
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: %(default)s)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="a part of the load, for a quick look; figures then mean nothing"
    )
    parser.add_argument(
        "--events",
        type=int,
        default=600_000,
        help="events for others in look_back, before the scale (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help="only works, curves and storms so named, look_back, participants or sync; repeatable",
    )
    parser.add_argument(
        "--against",
        metavar="KIND",
        nargs="*",
        choices=list(TITLES),
        default=list(TITLES),
        help=f"contestants: {', '.join(TITLES)} (default: all)",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where results go")
    parser.add_argument(
        "--page", action="store_true", help="write the tables and plots of what was measured into docs/, too"
    )
    options = parser.parse_args()
    if options.rounds < 1 or not 0 < options.scale <= 1:
        parser.error("--rounds must be at least 1, and --scale more than 0 and at most 1")
    if options.events < 1:
        parser.error("--events must be at least 1")
    if not Path("/proc/self/stat").exists():
        parser.error("processor time and memory are read from /proc: this needs Linux")
    if "node" in options.against and not (HERE / "node_modules").exists():
        parser.error(
            "Node's adapter is not installed: use `make bench`, or leave it out: --against recovery redis bare"
        )
    contestants: list[Kind] = list(dict.fromkeys(["recovery", *options.against]))
    bench = Bench(options.rounds, options.scale, lambda text: print(text, file=sys.stderr, flush=True))
    try:
        results = run(bench, contestants, options.only, options.events)
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
    finally:
        bench.stop()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    if results["works"]:
        print(report.comparison(results))
    for section in ("look_back", "participants", "partitions", "sync", "storms", "costs", "killed", "limits"):
        if report.SHOWS.get(section, section) in results:
            print("\n" + report.SECTIONS[section](results))
    written = plots.draw(results, PAGE.parent / "pictures" if options.page else options.out)
    if options.page:
        PAGE.write_text(report.fill(PAGE.read_text(), results))
        written.append(PAGE)
    bench.say(f"written: {', '.join(map(str, written))}")


def run(bench: Bench, contestants: list[Kind], only: list[str] | None, events: int) -> dict[str, Any]:
    """Runs the benchmarks.

    :param contestants: whom to compare.
    :param only: the names of the works and curves to run, or ``"look_back"``; ``None`` for everything.
    :param events: how many events for others :mod:`benchmarks.look_back` stores, before the scale.
    :returns: the results, ready to be written as JSON.
    """
    results: dict[str, Any] = {"machine": machine(bench), "works": {}, "growth": []}
    known = [work.name for work in works.works(bench)] + [curve.__name__ for curve in growth.CURVES]
    known += ["look_back", "participants", "partitions", "costs", *sync.names(bench), *storms.storms()]
    if unknown := set(only or ()) - set(known):
        sys.exit(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    beside = {"node", "redis"} <= set(contestants)
    if "costs" in (only or ()) and not beside:
        sys.exit("costs are measured beside others: --against redis node")
    began = time.monotonic()
    for work in works.works(bench):
        if only is None or work.name in only:
            bench.say(f"[{time.monotonic() - began:4.0f} s] {work.title}")
            result = works.measure(bench, work, contestants)
            results["works"][work.name] = {"title": work.title, "result": result}
    for curve in growth.CURVES:
        if only is None or curve.__name__ in only:
            bench.say(f"[{time.monotonic() - began:4.0f} s] growth: {curve.__name__}")
            results["growth"].append(dataclasses.asdict(curve(bench)))
    if only is None or "look_back" in only:
        bench.say(f"[{time.monotonic() - began:4.0f} s] look back")
        results["look_back"] = look_back.measure(bench, bench.some(events, 2))
    if only is None or "participants" in only:
        bench.say(f"[{time.monotonic() - began:4.0f} s] participants")
        results["participants"] = participants.measure(bench)
    if only is None or "partitions" in only:
        bench.say(f"[{time.monotonic() - began:4.0f} s] partitions")
        results["partitions"] = partitions.measure(bench)
    if only is None or set(only) & set(sync.names(bench)):
        bench.say(f"[{time.monotonic() - began:4.0f} s] synchronous servers")
        results["sync"] = sync.measure(bench, only)
    if only is None or set(only) & set(storms.storms()):
        bench.say(f"[{time.monotonic() - began:4.0f} s] storms")
        results["storms"] = storms.measure(bench, only, contestants)
    if only is None:
        bench.say(f"[{time.monotonic() - began:4.0f} s] a killed node")
        line, results["killed"] = growth.concurrent(bench)
        results["growth"].append(dataclasses.asdict(line))
    if beside and (only is None or "costs" in only):
        bench.say(f"[{time.monotonic() - began:4.0f} s] memory, idle clients, limits")
        results["costs"] = {
            "idle": costs.idle(bench, bench.some(1000), 50 * bench.scale),
            "stored": {kind: costs.stored(bench, kind, bench.some(5000)) for kind in ("recovery", "node")},
            "heartbeats": costs.heartbeats(bench, bench.some(1000), 20),
            "window": costs.window(bench, bench.some(50_000)),
            "appended": limits.appended(bench, bench.some(20_000)),
            "capacity": limits.capacity(bench),
            "load": limits.receivers_alone(bench, bench.some(200), bench.some(20_000, 100)),
        }
    bench.say(f"[{time.monotonic() - began:4.0f} s] done")
    return results


def machine(bench: Bench) -> str:
    """Returns one line that says with which machine and which versions this was measured."""
    info: Any = bench.redis.info("server")
    server = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("python-socketio", "python-engineio", "aiohttp"))
    redis_py = f"redis-py {version('redis')} with hiredis"
    below = ", ".join(f"{name} {version(name)}" for name in UVICORN_USES if find_spec(name))
    uvicorn = f"uvicorn {version('uvicorn')} with {below}"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python {platform.python_version()}, "
        f"{server}, {packages}, {uvicorn}, {redis_py}; {bench.rounds} rounds; {time.strftime('%Y-%m-%d')}"
    )


if __name__ == "__main__":
    main()

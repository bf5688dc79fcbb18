"""Every scenario of the chaos runner, briefly: one round of faults, or two. ``make chaos`` runs them for longer.

Where it matters how a server closes connections, it is also run with uvicorn.
"""

from __future__ import annotations

import pytest

from . import report
from .run import run
from .scenarios import SCENARIOS


@pytest.mark.parametrize(
    ("name", "server"),
    [*((name, "aiohttp") for name in SCENARIOS), ("rolling-restart", "uvicorn"), ("slow-clients", "uvicorn")],
)
async def test_scenario(name: str, server: str) -> None:
    result = await run(SCENARIOS[name], seed=1, duration=0, clients=9, nodes=2, server=server, say=print)
    found = "\n".join(report.evidence(result, violation) for violation in result.verdict.violations)
    assert not found, f"{found}\n{report.command(result)}"
    assert result.verdict.deliveries
    assert result.marks

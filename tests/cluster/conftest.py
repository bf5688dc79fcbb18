"""Each test runs with each of the servers that the option ``--servers`` names; by default with aiohttp."""

from __future__ import annotations

import pytest

#: What all tests run with, and what those of a few modules run with as well. ``make servers`` runs all with all.
SERVER = "aiohttp"
MORE = {
    "test_recovery": ("uvicorn", "hypercorn", "tornado", "threading"),
    "test_order": ("uvicorn", "threading"),
    "test_raw": ("uvicorn",),
}
#: Modules whose tests choose the servers themselves, or are about none: they run once.
ONCE = (
    *("test_cli", "test_inbox", "test_metrics", "test_mixed_servers", "test_partitions", "test_pubsub_bridge"),
    "test_pubsub_watch",
)
#: What a server can't do, and why: (server, test).
CAN_NOT = {
    ("hypercorn", "test_nothing_is_left_of_clients_that_do_not_read"): "nothing leads to hypercorn's TCP connections",
    (
        "tornado",
        "test_nothing_is_left_of_clients_that_do_not_read",
    ): "python-engineio does not await Tornado's writes",
    ("tornado", "test_a_client_that_does_not_read"): "python-engineio does not await Tornado's writes",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_kind" in metafunc.fixturenames:
        named = metafunc.config.getoption("--servers")
        module = metafunc.module.__name__.rpartition(".")[2]
        kinds = named.split(",") if named else [SERVER, *MORE.get(module, ())]
        if module in ONCE:
            kinds = kinds[:1]
        reasons = {kind: CAN_NOT.get((kind, metafunc.function.__name__)) for kind in kinds}
        params = [
            pytest.param(kind, marks=pytest.mark.skip(reason=reason)) if reason else kind
            for kind, reason in reasons.items()
        ]
        metafunc.parametrize("server_kind", params, indirect=True, scope="module")

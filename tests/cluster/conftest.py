"""Each test runs with each of the servers that the option ``--servers`` names.

By default these are aiohttp and uvicorn, and for the tests of :data:`SHORT` some more.
"""

from __future__ import annotations

import pytest

SERVERS = ("aiohttp", "uvicorn")
#: A module whose tests also run with other servers.
SHORT = ("test_recovery", ("hypercorn", "tornado", "threading", "gevent"))
#: Modules whose tests choose the servers themselves, or are about none: they run once.
ONCE = ("test_mixed_servers", "test_pubsub_watch")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_kind" in metafunc.fixturenames:
        named = metafunc.config.getoption("--servers")
        module = metafunc.module.__name__.rpartition(".")[2]
        short, others = SHORT
        kinds = named.split(",") if named else (*SERVERS, *(others if module == short else ()))
        if module in ONCE:
            kinds = kinds[:1]
        metafunc.parametrize("server_kind", kinds, indirect=True, scope="module")

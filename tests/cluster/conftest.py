"""Each test runs with each of the servers that the option ``--servers`` names.

By default these are aiohttp and uvicorn, and for the tests of :data:`SHORT` some more.
"""

from __future__ import annotations

import pytest

SERVERS = ("aiohttp", "uvicorn")
#: A module whose tests also run with other servers.
SHORT = ("test_recovery", ("hypercorn", "tornado", "threading", "gevent"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_kind" in metafunc.fixturenames:
        named = metafunc.config.getoption("--servers")
        module, others = SHORT
        short = metafunc.module.__name__.rpartition(".")[2] == module
        kinds = named.split(",") if named else (*SERVERS, *(others if short else ()))
        metafunc.parametrize("server_kind", kinds, indirect=True, scope="module")

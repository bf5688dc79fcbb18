"""Each test runs with each of the servers that the option ``--servers`` names."""

from __future__ import annotations

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_kind" in metafunc.fixturenames:
        kinds = metafunc.config.getoption("--servers").split(",")
        metafunc.parametrize("server_kind", kinds, indirect=True, scope="module")

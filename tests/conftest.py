from __future__ import annotations

import pytest
from hypothesis import settings

# Failed assertions in these helpers are explained as they are in tests.
pytest.register_assert_rewrite("tests.support", "tests.security", "tests.store")
#: Fixtures that tests of several folders use.
pytest_plugins = ("tests.support.fixtures",)

# Hypothesis has no deadline: a test may be slow on a busy machine. It tries the same examples each time, so that a run
# says something of what was changed; `make flaky` looks for others (--hypothesis-profile=search).
settings.register_profile("tests", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, derandomize=False)
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        default="",
        help="what serves the nodes of tests/cluster: names of tests/support/node_servers.py, with commas between them",
    )
    parser.addoption("--shards", type=int, default=1, help="how many partitions the nodes of tests/cluster have")

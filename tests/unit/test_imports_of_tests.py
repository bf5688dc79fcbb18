"""The folders of tests depend on each other in one direction only. See CONTRIBUTING.md.

These tests read the import statements of all modules; they import none of them.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT

#: Folders, and modules, that test the chat: only these may import from it.
TESTS_OF_THE_CHAT = ("tests.chat.", "tests.browser.", "tests.unit.test_chat_")
#: The one module of a folder of tests that another folder uses: (folder that uses it, module).
USED_ELSEWHERE = ("tests.store", "tests.simulation.redis")
#: Modules of the chat that its Docker image does not run, though it contains them.
NOT_IN_THE_IMAGE = ("chat.__main__",)


def name_of(path: Path) -> str:
    """Returns the dotted name of a module; a package's is ``package.__init__``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@cache
def modules(folder: str) -> dict[str, str]:
    """Returns the source of all modules below a folder: name -> source."""
    paths = (ROOT / folder).rglob("*.py")
    return {name_of(path): path.read_text() for path in sorted(paths) if "node_modules" not in path.parts}


def imported(name: str, source: str) -> set[str]:
    """Returns what a module imports: names of modules, and of what it takes from them.

    ``from .b import c`` in the module ``a.x`` gives ``a.b`` and ``a.b.c``: ``c`` may be a module, too.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".")[: -node.level] if node.level else []
            module = ".".join([*package, *([node.module] if node.module else [])])
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def within(name: str, *packages: str) -> bool:
    """Tells whether a module is one of these, or in one of these packages."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def is_test_or_conftest(name: str) -> bool:
    """Tells whether a name leads to a test module or a ``conftest``, or to something in it."""
    parts = name.split(".")
    return parts[0] == "tests" and any(part.startswith("test_") or part == "conftest" for part in parts)


def test_relative_imports_are_resolved() -> None:
    assert imported("tests.a.test_x", "from .test_y import z") == {"tests.a.test_y", "tests.a.test_y.z"}
    assert imported("tests.a.test_x", "from . import conftest") == {"tests.a", "tests.a.conftest"}
    assert imported("tests.a.__init__", "from ..b import c") == {"tests.b", "tests.b.c"}
    assert imported("tests.a.x", "def f():\n    import tests.b.c as d") == {"tests.b.c"}


def test_nobody_imports_from_a_test_module_or_a_conftest() -> None:
    found = [
        f"{name} imports {other}"
        for folder in ("tests", "benchmarks", "local", "chat")
        for name, source in modules(folder).items()
        for other in imported(name, source)
        if is_test_or_conftest(other)
    ]
    assert found == []


def test_only_the_tests_of_the_chat_import_from_it() -> None:
    """What the chat, the tests and the benchmarks share is in ``local/``."""
    found = [
        f"{name} imports {other}"
        for name, source in modules("tests").items()
        for other in imported(name, source)
        if within(other, "chat") and not name.startswith(TESTS_OF_THE_CHAT)
    ]
    assert found == []


def test_a_folder_of_tests_imports_from_no_other_but_the_shared_helpers() -> None:
    """Nor do the shared helpers import from a folder of tests."""
    found = []
    for name, source in modules("tests").items():
        folder = ".".join(name.split(".")[:2])
        for other in imported(name, source):
            fine = within(other, folder, "tests.support") or (
                within(folder, USED_ELSEWHERE[0]) and within(other, USED_ELSEWHERE[1])
            )
            if other.startswith("tests.") and not fine:
                found.append(f"{name} imports {other}")
    assert found == []


def test_benchmarks_take_from_the_tests_only_shared_helpers() -> None:
    found = [
        f"{name} imports {other}"
        for name, source in modules("benchmarks").items()
        for other in imported(name, source)
        if within(other, "tests") and not within(other, "tests.support")
    ]
    assert found == []


def test_the_chat_and_local_import_no_tests_and_no_benchmarks() -> None:
    found = [
        f"{name} imports {other}"
        for folder, allowed in (("chat", ("chat", "local")), ("local", ("local",)))
        for name, source in modules(folder).items()
        for other in imported(name, source)
        if within(other, "chat", "local", "tests", "benchmarks") and not within(other, *allowed)
    ]
    assert found == []


def test_a_node_of_the_chat_needs_nothing_that_its_image_lacks() -> None:
    """The Dockerfile copies ``chat`` and not ``local``."""
    found = [
        f"{name} imports {other}"
        for name, source in modules("chat").items()
        for other in imported(name, source)
        if within(other, "local") and name not in NOT_IN_THE_IMAGE
    ]
    assert found == []

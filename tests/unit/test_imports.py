"""The layout of the library: rules have no I/O, and private parts of upstream are touched in the folders named so."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import socketio_recovery
from socketio_recovery.aio.upstream import table

PACKAGE = Path(socketio_recovery.__file__).parent
RULES = sorted([*PACKAGE.glob("*.py"), *(PACKAGE / "redis").glob("*.py")])
RULES.remove(PACKAGE / "__init__.py")
UPSTREAM = PACKAGE / "aio" / "upstream"
UPSTREAMS = (UPSTREAM, PACKAGE / "threads" / "upstream")
#: What waits for something, or knows somebody who does.
IO = {"asyncio", "threading", "redis", "valkey", "socket", "selectors", "concurrent"}


def imports(path: Path) -> set[str]:
    """The modules that a file imports; those of the library by their path from its root, with a dot before it."""
    found: set[str] = set()
    parts = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level + 1]
            found.add("." + ".".join([*base, *([node.module] if node.module else [])]))
            if not node.module:
                found.update("." + ".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", RULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rules_import_nothing_that_does_io(path: Path) -> None:
    for module in imports(path):
        assert module.split(".")[0] not in IO, f"{path.name} imports {module}"
        assert not module.startswith((".aio", ".threads")), f"{path.name} imports {module}"


def test_there_are_rules_to_look_at() -> None:
    names = {path.stem for path in RULES}
    assert {"entries", "packets", "window", "membership", "log_cursor", "session_record", "continuity"} <= names
    assert {"connections", "delivery", "partition", "look_back", "read_size", "keys", "scripts"} <= names


def test_imports_are_seen() -> None:
    assert ".aio.tasks" in imports(PACKAGE / "aio" / "node.py")
    assert "asyncio" in imports(PACKAGE / "aio" / "node.py")
    assert ".aio.scope" in imports(UPSTREAM / "socketio_server.py")


PRIVATE = {target.name for target in (*table.HOOKS, *table.RELIED_ON) if target.name.startswith("_")}
PRIVATE |= {"_binary_packet", "_sock", "_get_socket", "_async"}
PRIVATE |= {"_ManagedSession", "saved_session", "sockio_mw", "_send_eio_packet"}  # of Flask-SocketIO


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if not set(UPSTREAMS) & set(path.parents)],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_private_parts_of_upstream_are_touched_in_one_folder_of_each_shell(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        touched = (
            node.attr if isinstance(node, ast.Attribute) else node.value if isinstance(node, ast.Constant) else None
        )
        assert touched not in PRIVATE, f"{path.name}:{getattr(node, 'lineno', 0)} touches {touched}"

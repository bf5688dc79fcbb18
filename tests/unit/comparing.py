"""Compares values with what came back."""

from __future__ import annotations

from typing import Any


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal and of the same types, all the way down."""
    if type(a) is not type(b) or a != b:
        return False
    if isinstance(a, dict):
        return list(map(type, a)) == list(map(type, b)) and all(same(a[key], b[key]) for key in a)
    return not isinstance(a, (list, tuple)) or all(map(same, a, b))

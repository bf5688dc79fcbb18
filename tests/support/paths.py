"""Where files of this project are."""

from __future__ import annotations

from pathlib import Path

#: The folder of the whole project.
ROOT = Path(__file__).parents[2]

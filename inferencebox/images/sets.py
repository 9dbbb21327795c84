"""What images are made of besides programs: Debian packages and Python distributions, unpacked and not installed."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from inferencebox.images.python import MODULES, PACKAGE, VERSION, Python
from inferencebox.images.recipes import PackageSet, PythonSet
from inferencebox.paths import project_root
from inferencebox.programs import apt, pypi
from inferencebox.programs.commands import CommandFailed, Commands
from inferencebox.programs.errors import Unavailable
from inferencebox.programs.sources.base import Made, Outcomes, each
from inferencebox.programs.store import digest_of
from inferencebox.release import Item


class UnpackedPackages:
    """Sets of Debian packages, fetched with one look at the package lists."""

    name = "packages"
    needs_bytes = 1 << 30
    uses_all_cores = False

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def offers(self, item: Item) -> bool:
        return isinstance(item, PackageSet)

    def obstacle(self, item: Item) -> Unavailable | None:
        missing = apt.missing_tools()
        return Unavailable(f"{' and '.join(missing)} not found", "use a Debian or Ubuntu machine") if missing else None

    def batch(self, item: Item) -> str:
        return "packages"

    def recipe(self, item: Item) -> Mapping[str, Any]:
        assert isinstance(item, PackageSet)
        return {"packages": item.packages, **({"compiled": True} if PACKAGE in item.packages else {})}

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        packages = apt.Packages(work, self._commands)
        packages.update()
        return each(items, lambda item: self._make_one(item, packages, work))

    def _make_one(self, item: Item, packages: apt.Packages, work: Path) -> Made:
        assert isinstance(item, PackageSet)
        debs = packages.download(item.packages, work / item.name)
        root = work / f"made-{item.name}"
        packages.unpack(debs, root)
        if PACKAGE in item.packages:
            Python(root, self._commands).compile(item.name, root / MODULES)
        return Made(root, "", {deb.name: digest_of(deb) for deb in debs})


class LockedDistributions:
    """Sets of Python distributions, by the checksums of ``uv.lock``, as wheels for Debian's Python.

    Args:
        commands: what uv is run with.
        find_python: gets that Python.
    """

    name = "uv"
    needs_bytes = 2 << 30
    uses_all_cores = False

    def __init__(self, commands: Commands, find_python: Callable[[], Python]) -> None:
        self._commands = commands
        self._find_python = find_python

    def offers(self, item: Item) -> bool:
        return isinstance(item, PythonSet)

    def obstacle(self, item: Item) -> Unavailable | None:
        return None if pypi.uv() else Unavailable("uv is not here", pypi.INSTALLER_FIX)

    def batch(self, item: Item) -> str:
        return item.name

    def recipe(self, item: Item) -> Mapping[str, Any]:
        assert isinstance(item, PythonSet)
        return {"python": VERSION, "compiled": True, "requirements": requirements_of(*_which(item))}

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        return each(items, lambda item: self._make_one(item, work))

    def _make_one(self, item: Item, work: Path) -> Made:
        assert isinstance(item, PythonSet)
        requirements, target = work / "requirements.txt", work / "out"
        requirements.write_text(requirements_of(*_which(item)))
        options = ["--only-binary", ":all:", "--require-hashes", "--no-deps", "--link-mode", "copy"]
        python: list[str | Path] = ["--python-version", VERSION, "--target", target]
        words = [*pypi.uv(), "pip", "install", *python, *options, "-r", requirements]
        try:
            self._commands.run(item.name, words, cwd=project_root(), env=os.environ)
            for folder in [*target.rglob("__pycache__"), target / "bin"]:
                shutil.rmtree(folder, ignore_errors=True)
            self._find_python().compile(item.name, target)
        except CommandFailed as failure:
            raise Unavailable(f"no {item.name} ({failure})", f"read {failure.log}, then run this again") from failure
        return Made(target, "", {"requirements": digest_of(requirements)})


@cache
def requirements_of(*which: str) -> str:
    """The part of ``uv.lock`` that a set is, with checksums: the set changes when this does, and only then."""
    words = [*pypi.uv(), "export", *which, "--frozen", "--offline", "--no-emit-workspace", "--no-header"]
    done = subprocess.run(words, cwd=project_root(), capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"uv does not read uv.lock: {done.stderr.strip()}", "run from a checkout of the project")
    return done.stdout


def _which(item: PythonSet) -> list[str]:
    if item.group:
        return ["--only-group", item.group]
    extras = [word for name in item.extras for word in ("--extra", name)]
    return ["--no-dev", "--package", str(item.project), *extras]

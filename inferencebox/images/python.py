"""Debian's Python out of a set of packages, run from where it lies: no root, nothing installed.

Packages and wheels that are unpacked and not installed hold modules as they were written. Python then compiles each of
them whenever a container starts: four seconds of a core for a model server (KServe's SDK), a second for the smallest.
"""

import os
from pathlib import Path

from inferencebox.programs.commands import Commands

VERSION = "3.11"
"""Debian 12's, which images run."""
PACKAGE = f"python{VERSION}-minimal"
SET = "python"
"""The set of packages that it is in."""
MODULES = f"usr/lib/python{VERSION}"
COMPILER = "import runpy, sys; sys.stdout = sys.stderr; runpy.run_module('compileall', run_name='__main__')"
"""It names a module that is not Python on standard output, which is no place for errors: the log has the other."""
TESTS = "/tests?/"
"""What no service imports: a third of all modules there are."""


class Python:
    """The interpreter of a set of packages, with the libraries of that set and not this machine's.

    Args:
        root: where the packages are unpacked.
        commands: what it is run with.
    """

    def __init__(self, root: Path, commands: Commands) -> None:
        self._root = root
        self._commands = commands

    def compile(self, name: str, folder: Path) -> None:
        """Put beside the modules below a folder what Python makes of them.

        It is taken for theirs without a look at them (PEP 552, unchecked): an image does not change.

        Args:
            name: of the log.
            folder: its files may be links.

        Raises:
            CommandFailed: a module is not Python.
        """
        (loader,) = self._root.glob("lib/*-linux-gnu/ld-linux-*.so.*")
        libraries = ":".join(str(found) for part in ("", "usr/") for found in self._root.glob(f"{part}lib/*-linux-gnu"))
        python: list[str | Path] = [loader, "--library-path", libraries, self._root / f"usr/bin/python{VERSION}", "-I"]
        options: list[str | Path] = ["-q", "-x", TESTS, "--invalidation-mode", "unchecked-hash", "-s", folder]
        self._commands.run(f"{name}-compiled", [*python, "-c", COMPILER, *options, folder], folder, os.environ)

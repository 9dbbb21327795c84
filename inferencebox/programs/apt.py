"""Debian packages without root: apt with lists and caches of its own, from the sources this machine has."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from inferencebox.programs.commands import CommandFailed, Commands
from inferencebox.programs.errors import Unavailable

TOOLS = ("apt-get", "dpkg-deb")
UNNEEDED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bash-completion")
FIX = "check that `apt-get update` works on this machine and that it is the Debian release that the packages are of"


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if not shutil.which(tool)]


class Packages:
    """Fetches and unpacks packages into a workspace; the machine's own apt and dpkg state stays as it is."""

    def __init__(self, work: Path, commands: Commands) -> None:
        self._home = work / "apt"
        self._commands = commands

    def update(self) -> None:
        """Fetch the package lists."""
        for folder in ("lists/partial", "archives/partial"):
            (self._home / folder).mkdir(parents=True)
        (self._home / "status").touch()
        self._run("apt-update", ["apt-get", *self._options(), "update"], self._home)

    def download(self, packages: Sequence[str], folder: Path) -> list[Path]:
        """These packages and no others, verified by apt against its signed lists."""
        folder.mkdir()
        self._run(f"apt-{folder.name}", ["apt-get", *self._options(), "download", *packages], folder)
        return sorted(folder.glob("*.deb"))

    def unpack(self, debs: Sequence[Path], root: Path) -> None:
        """Unpack packages over each other."""
        root.mkdir()
        for deb in debs:
            self._run(f"dpkg-{deb.name.partition('_')[0]}", ["dpkg-deb", "-x", deb, root], root)
        for folder in UNNEEDED:
            shutil.rmtree(root / folder, ignore_errors=True)

    def _run(self, name: str, argv: Sequence[str | Path], cwd: Path) -> None:
        try:
            self._commands.run(name, argv, cwd=cwd, env=os.environ)
        except CommandFailed as failure:
            raise Unavailable(f"Debian packages are not to be had ({failure})", FIX) from failure

    def _options(self) -> list[str]:
        settings = {
            "Dir::State": self._home,
            "Dir::State::lists": self._home / "lists",
            "Dir::State::status": self._home / "status",
            "Dir::Cache": self._home,
            "Dir::Cache::archives": self._home / "archives",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "",
            "APT::Update::Error-Mode": "any",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

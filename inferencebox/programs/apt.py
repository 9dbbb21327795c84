"""Debian packages without root: apt with lists and caches of its own, from the sources this machine has."""

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from inferencebox.programs.commands import CommandFailed, Commands
from inferencebox.programs.errors import Unavailable

TOOLS = ("apt-get", "dpkg-deb")
SOURCES = Path("/etc/apt/sources.list.d")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
UNNEEDED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bash-completion")
FIX = "check that `apt-get update` works on this machine and that it is the Debian release that the packages are of"


def own_release() -> str | None:
    """The codename of this machine's Debian."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME")


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if not shutil.which(tool)]


class Packages:
    """Fetches and unpacks packages into a workspace; the machine's own apt and dpkg state stays as it is.

    Args:
        work: the workspace.
        commands: what apt and dpkg are run with.
        releases: other releases of Debian, from the mirror of this machine's own; packages of them are asked for by
            version, for without one this machine's release is preferred.
    """

    def __init__(self, work: Path, commands: Commands, releases: Sequence[str] = ()) -> None:
        self._home = work / "apt"
        self._commands = commands
        self._releases = releases

    def update(self) -> None:
        """Fetch the package lists."""
        for folder in ("lists/partial", "archives/partial", "sources"):
            (self._home / folder).mkdir(parents=True)
        (self._home / "status").touch()
        lines = [f"deb [signed-by={KEYRING}] {self.mirror()} {release} main\n" for release in self._releases]
        (self._home / "more.list").write_text("".join(lines))
        self._run("apt-update", ["apt-get", *self._options(), "update"], self._home)

    def mirror(self) -> str:
        """The address from which this machine's own release of Debian comes."""
        words = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
        targets = self._run("apt-mirror", words, self._home).splitlines()
        own = own_release()
        for target in targets:
            release, _, address = target.partition(" ")
            if own and release == own:
                return address.rstrip("/")
        raise Unavailable("apt knows no mirror of this machine's own release", FIX)

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

    def _run(self, name: str, argv: Sequence[str | Path], cwd: Path) -> str:
        try:
            return self._commands.run(name, argv, cwd=cwd, env=os.environ)
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
        if self._releases:
            settings["Dir::Etc::sourceparts"] = self._own_sources()
            settings["APT::Default-Release"] = f"/^{own_release()}/"
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _own_sources(self) -> Path:
        """The machine's sources, and those of the other releases."""
        parts = self._home / "sources"
        for file in [*SOURCES.glob("*.list"), *SOURCES.glob("*.sources"), self._home / "more.list"]:
            link = parts / file.name
            if not link.exists():
                link.symlink_to(file)
        return parts

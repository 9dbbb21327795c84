"""Programs out of Debian packages, unpacked into the cache and started with their own libraries."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inferencebox.programs import apt
from inferencebox.programs.commands import Commands
from inferencebox.programs.errors import Unavailable
from inferencebox.programs.launcher import write_launcher
from inferencebox.programs.sources.base import Made, Outcomes, each
from inferencebox.programs.sources.path import says_its_version
from inferencebox.programs.store import digest_of
from inferencebox.release import Item


class DebPrograms:
    """Unpacks packages and writes a launcher for each program wanted of them."""

    name = "deb"
    needs_bytes = 1 << 29
    uses_all_cores = False

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def offers(self, item: Item) -> bool:
        return item.deb is not None

    def obstacle(self, item: Item) -> Unavailable | None:
        missing = apt.missing_tools()
        return Unavailable(f"no {' and no '.join(missing)} here", "use a Debian machine") if missing else None

    def batch(self, item: Item) -> str:
        assert item.deb
        return "-".join(["deb", *item.deb.releases])

    def recipe(self, item: Item) -> Mapping[str, Any]:
        assert item.deb
        return {"deb": item.deb.model_dump(), "version": item.version}

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        assert items[0].deb
        packages = apt.Packages(work, self._commands, items[0].deb.releases)
        packages.update()
        return each(items, lambda item: self._make_one(item, packages, work))

    def _make_one(self, item: Item, packages: apt.Packages, work: Path) -> Made:
        assert item.deb
        debs = packages.download(item.deb.packages, work / item.name)
        folder = work / f"made-{item.name}"
        (folder / "bin").mkdir(parents=True)
        packages.unpack(debs, folder / "root")
        for name, command in item.deb.launchers.items():
            write_launcher(folder / "bin" / name, "../root", command, item.deb.environment)
        program = f"bin/{item.name}"
        if item.version_check and not says_its_version(folder / program, item.version_check):
            raise Unavailable(f"the packages hold no {item.version}, or it does not run here", apt.FIX)
        return Made(folder, program, {deb.name: digest_of(deb) for deb in debs})

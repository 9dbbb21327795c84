"""Programs that somebody publishes inside PyPI wheels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inferencebox.programs import pypi
from inferencebox.programs.commands import Commands
from inferencebox.programs.errors import Unavailable
from inferencebox.programs.sources.base import Made, Outcomes, each
from inferencebox.release import Item


class WheelPrograms:
    """Takes one file out of a wheel."""

    name = "wheel"
    needs_bytes = 1 << 29
    uses_all_cores = False

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def offers(self, item: Item) -> bool:
        return item.wheel is not None

    def obstacle(self, item: Item) -> Unavailable | None:
        return None if pypi.installer() else Unavailable("neither uv nor pip is here", pypi.INSTALLER_FIX)

    def batch(self, item: Item) -> str:
        return f"wheel-{item.name}"

    def recipe(self, item: Item) -> Mapping[str, Any]:
        assert item.wheel
        return {"wheel": item.wheel.model_dump()}

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        return each(items, lambda item: self._make_one(item, work))

    def _make_one(self, item: Item, work: Path) -> Made:
        assert item.wheel
        unpacked = pypi.unpack_wheel(item.wheel, work, self._commands)
        source = unpacked / item.wheel.path
        if not source.is_file():
            raise Unavailable(f"{item.wheel.requirement} has no {item.wheel.path}", "correct the path in the release")
        folder = work / "out"
        folder.mkdir()
        program = folder / item.name
        source.rename(program)
        program.chmod(0o755)
        return Made(folder, item.name, {"requirement": item.wheel.requirement, "publisher": item.wheel.publisher})

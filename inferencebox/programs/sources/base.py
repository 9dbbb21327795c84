"""What every source of programs has in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from inferencebox.programs.errors import Unavailable
from inferencebox.release import Item


@dataclass(frozen=True)
class Made:
    """What a source made: a folder below its workspace, and the program in it (empty for a set of files)."""

    folder: Path
    program: str
    made_with: Mapping[str, str] = field(default_factory=dict)


Outcomes = Mapping[str, Made | Unavailable]


class Source(Protocol):
    """Makes programs into a workspace. It neither caches nor publishes."""

    @property
    def name(self) -> str: ...

    @property
    def needs_bytes(self) -> int:
        """Free disk space to ask for before starting."""

    @property
    def uses_all_cores(self) -> bool:
        """Whether two of these at once would only slow each other down."""

    def offers(self, item: Item) -> bool:
        """Whether the pin names this source at all."""

    def obstacle(self, item: Item) -> Unavailable | None:
        """Why this source can't be used here, as far as that is known without making anything."""

    def batch(self, item: Item) -> str:
        """Items with the same answer are made together."""

    def recipe(self, item: Item) -> Mapping[str, Any]:
        """Everything that decides what comes out: the cache's key is made from it."""

    def make(self, items: Sequence[Item], work: Path) -> Outcomes:
        """Make all of one batch; raises ``Unavailable`` when the next source should be tried for all of it."""


def each(items: Sequence[Item], make_one: Callable[[Item], Made]) -> Outcomes:
    """Make items one by one: what one source can't give does not spoil the others."""
    outcomes: dict[str, Made | Unavailable] = {}
    for item in items:
        try:
            outcomes[item.name] = make_one(item)
        except Unavailable as why:
            outcomes[item.name] = why
    return outcomes

"""The sabotages, read from `catalogue.yaml`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import yaml
from pydantic import BaseModel, ConfigDict

from inferencebox.errors import SetupProblem

from .mechanisms import Mechanism

_SOURCE = Path(__file__).parent / "catalogue.yaml"


class Sabotage(BaseModel):
    """One way of breaking the platform."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    breaks: str
    how: tuple[Mechanism, ...]
    settle: tuple[str, ...] = ()
    pending: str = ""
    collateral: Mapping[str, str] = {}


class Catalogue(BaseModel):
    """All of them, and the scenarios that are asked besides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bystanders: tuple[str, ...]
    canaries: tuple[str, ...]
    sabotages: Mapping[str, Sabotage]

    def choose(self, names: tuple[str, ...]) -> list[Sabotage]:
        """Those of these names (a name ending in `*` stands for all that begin so); all if none is given.

        Raises:
            SetupProblem: there is none of that name.
        """
        chosen = []
        for name in names or ("*",):
            found = [
                sabotage
                for key, sabotage in self.sabotages.items()
                if key == name or (name.endswith("*") and key.startswith(name[:-1]))
            ]
            if not found:
                raise SetupProblem(f"there is no sabotage {name!r}", "see `ibox sabotage --list`")
            chosen += [sabotage for sabotage in found if sabotage not in chosen]
        return chosen


@cache
def catalogue() -> Catalogue:
    """The catalogue, in the order of the file."""
    entries = yaml.safe_load(_SOURCE.read_text(encoding="utf-8"))
    named = {name: Sabotage(name=name, **entry) for name, entry in entries.pop("sabotages").items()}
    return Catalogue(sabotages=MappingProxyType(named), **entries)

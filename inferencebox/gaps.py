"""Known gaps: promises that a pinned version of an upstream is known not to keep (`manifests/known-gaps.yaml`).

Only an entry there makes a failure an expected one, only for the layer's version it names, and only for the part of
the scenario that asks for it. When the gap is closed, the scenario says so and the entry has to go (SPEC section 0).
"""

from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from inferencebox.errors import SetupProblem
from inferencebox.paths import project_root
from inferencebox.scenarios import catalogue


class KnownGap(BaseModel):
    """One promise, or part of one, that a version of an upstream does not keep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str
    layer: str
    versions: tuple[str, ...] = Field(min_length=1)
    reason: str = Field(min_length=1)
    upstream: str = Field(pattern="^https://")

    @field_validator("scenario")
    @classmethod
    def _is_a_promise(cls, name: str) -> str:
        if name not in catalogue():
            raise ValueError(f"{name} is not a scenario")
        return name

    def applies(self, versions: Mapping[str, str]) -> bool:
        """Whether it is known of the version that runs. `versions`: layer to version, as the release pins them."""
        return versions.get(self.layer) in self.versions

    def __str__(self) -> str:
        return f"{self.layer} {', '.join(self.versions)}: {self.reason} ({self.upstream})"


def known_gaps(file: Path | None = None) -> Mapping[str, KnownGap]:
    """All entries by name.

    Raises:
        SetupProblem: an entry is incomplete or names no scenario.
    """
    file = file or project_root() / "manifests" / "known-gaps.yaml"
    entries = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    try:
        return {name: KnownGap(**entry) for name, entry in entries.items()}
    except (ValidationError, TypeError) as error:
        wrong = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise SetupProblem(
            f"{file.name} can't be used: {wrong}", "give each entry scenario, layer, versions, reason and upstream"
        ) from error

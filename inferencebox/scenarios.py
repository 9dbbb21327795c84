"""The promises: every scenario ID with what is promised, read from `data/scenarios.yaml`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import yaml
from pydantic import BaseModel, ConfigDict

_SOURCE = Path(__file__).parent / "data" / "scenarios.yaml"

AREAS = ("security", "tenancy", "scaling", "traffic", "observability", "management", "operations")
DEMOS = ("security", "autoscaling", "canary", "multitenancy", "observability")
"""The five demos; each is the `feature` of its scenarios."""
EXTRA_MARKERS = {"ALR": "alerting", "OPS": "management"}
"""Markers that a prefix has beside its area's."""


class Scenario(BaseModel):
    """One promise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    then: str = ""
    area: str
    feature: str
    layers: tuple[str, ...]
    adversarial: bool = False
    demo: bool = False
    roadmap: bool = False
    seeds: tuple[str, ...]

    @property
    def promise(self) -> str:
        """The promise as one sentence."""
        return f"{self.title}: {self.then}" if self.then else self.title

    @property
    def markers(self) -> tuple[str, ...]:
        """The pytest markers of a test of this promise."""
        wanted = [self.area, EXTRA_MARKERS.get(self.id[:3], ""), "demo" * self.demo, "roadmap" * self.roadmap]
        return tuple(marker for marker in wanted if marker)


@cache
def catalogue() -> Mapping[str, Scenario]:
    """All promises by ID, in the order of the specification."""
    entries = yaml.safe_load(_SOURCE.read_text(encoding="utf-8"))["scenarios"]
    return MappingProxyType({key: Scenario(id=key, **entry) for key, entry in entries.items()})


@cache
def layer_names() -> Mapping[str, str]:
    """What the layer letters stand for."""
    return MappingProxyType(dict(yaml.safe_load(_SOURCE.read_text(encoding="utf-8"))["layers"]))

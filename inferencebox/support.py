"""Which versions go together: a release is held against the ranges that the projects document."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources

import yaml
from pydantic import TypeAdapter

from inferencebox.release import Pin, Release

LINE = re.compile(r"v?(\d+)\.(\d+)")


class Level(StrEnum):
    """What a range says about a version outside of it."""

    WARN = "warn"
    REFUSE = "refuse"


class Range(Pin):
    """One layer's line needs another layer's line within these bounds."""

    layer: str
    line: str
    needs: str
    lowest: str | None = None
    highest: str | None = None
    outside: Level
    source: str

    def allows(self, line: str) -> bool:
        return (not self.lowest or _numbers(self.lowest) <= _numbers(line)) and (
            not self.highest or _numbers(line) <= _numbers(self.highest)
        )

    def __str__(self) -> str:
        if self.lowest and self.highest:
            return self.lowest if self.lowest == self.highest else f"{self.lowest} to {self.highest}"
        return f"{self.lowest} or newer" if self.lowest else f"{self.highest} or older"


@dataclass(frozen=True)
class Finding:
    """Something about a release's versions that its reader should know."""

    level: Level
    text: str


@cache
def known_ranges() -> tuple[Range, ...]:
    """The ranges of ``data/support.yaml``."""
    content = resources.files("inferencebox").joinpath("data/support.yaml").read_text()
    return tuple(TypeAdapter(list[Range]).validate_python(yaml.safe_load(content)))


def findings(release: Release, ranges: Sequence[Range] | None = None) -> list[Finding]:
    """What is unknown, refused or undocumented about this set of versions."""
    ranges = known_ranges() if ranges is None else ranges
    lines = {name: line_of(layer.version) for name, layer in release.layers.items()}
    return [*_unknown(lines, ranges), *_outside(lines, ranges)]


def line_of(version: str) -> str:
    """v1.26.2 -> 1.26."""
    found = LINE.match(version)
    return f"{found[1]}.{found[2]}" if found else version


def _unknown(lines: Mapping[str, str], ranges: Sequence[Range]) -> list[Finding]:
    known = {(entry.layer, entry.line) for entry in ranges}
    layers = {entry.layer for entry in ranges}
    return [
        Finding(Level.REFUSE, f"nobody has looked up what {name} {line} goes with: add it to support.yaml")
        for name, line in lines.items()
        if name in layers and (name, line) not in known
    ]


def _outside(lines: Mapping[str, str], ranges: Sequence[Range]) -> list[Finding]:
    return [
        Finding(
            entry.outside,
            f"{entry.layer} {entry.line} is documented for {entry.needs} {entry}, "
            f"this release has {lines[entry.needs]} ({entry.source})",
        )
        for entry in ranges
        if lines.get(entry.layer) == entry.line and entry.needs in lines and not entry.allows(lines[entry.needs])
    ]


def _numbers(line: str) -> tuple[int, ...]:
    return tuple(int(part) for part in line.split("."))

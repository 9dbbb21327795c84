"""A recorded run as objects: what every report is drawn from."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferencebox.scenarios import AREAS, Scenario, catalogue
from inferencebox.verdicts import WORST_FIRST

NEVER_ENDED = "the run ended before there was a verdict"

Event = Mapping[str, Any]


@dataclass
class Exchange:
    """One request and its reply."""

    request: Mapping[str, Any]
    response: Mapping[str, Any]
    command: str
    at: float
    omitted: int = 0


@dataclass
class Attachment:
    """A note, a plot or what the platform said about itself after a failure."""

    title: str
    mime: str
    kind: str
    body: object
    at: float


@dataclass
class Step:
    """One part of a scenario, with what happened in it, in order."""

    name: str
    title: str
    kind: str
    began: float
    outcome: str = "unfinished"
    reason: str = ""
    seconds: float = 0.0
    exchanges: int = 0
    parts: "list[Step | Exchange | Attachment]" = field(default_factory=list)


@dataclass
class Item:
    """One test of a scenario; parametrised ones have several."""

    item: str
    title: str
    story: str
    began: float
    sabotage: tuple[str, ...] = ()
    verdict: str = "error"
    reason: str = NEVER_ENDED
    where: str = ""
    detail: str = ""
    seconds: float = 0.0
    ended: float = 0.0
    root: Step = field(default_factory=lambda: Step("", "", "", 0.0))

    @property
    def diagnosis(self) -> list[Attachment]:
        """What was found out right after a failure."""
        return [part for part in self.root.parts if isinstance(part, Attachment) and part.kind == "diagnosis"]


@dataclass
class Result:
    """What became of one promise in this run."""

    promise: Scenario
    items: list[Item]

    @property
    def verdict(self) -> str:
        """The worst of its tests."""
        return next(verdict for verdict in WORST_FIRST if any(item.verdict == verdict for item in self.items))

    @property
    def reason(self) -> str:
        return next((item.reason for item in self.items if item.verdict == self.verdict and item.reason), "")

    @property
    def title(self) -> str:
        return self.items[0].title if len(self.items) == 1 else self.items[0].title.partition(" [")[0]

    @property
    def seconds(self) -> float:
        return sum(item.seconds for item in self.items)


@dataclass
class Run:
    """One recorded run."""

    folder: Path
    facts: Mapping[str, Any]
    results: Mapping[str, Result]
    layers: list[Event]
    capabilities: Mapping[str, str | None]
    digest: str
    ended: float
    exit_code: int | None
    kill_matrix: Mapping[str, Any]

    @property
    def began(self) -> float:
        return float(self.facts["at"])

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended - self.began)

    @property
    def platform(self) -> Event:
        """How the platform came up; empty when no scenario needed one."""
        return next((layer for layer in self.layers if layer.get("layer") == "platform"), {})

    @property
    def versions(self) -> Mapping[str, str]:
        """What the release pins."""
        return self.platform.get("versions") or {}

    @property
    def seen(self) -> Mapping[str, Any]:
        """What ran, as the platform said at the run's beginning (`census.take`); empty if it said nothing."""
        return self.platform.get("seen") or {}

    @property
    def counts(self) -> Counter[str]:
        """Promises by verdict."""
        return Counter(result.verdict for result in self.results.values())

    def of(self, area: str = "", verdict: str = "", feature: str = "") -> list[Result]:
        """Results of an area, a feature, a verdict, or of several of these at once."""
        return [
            result
            for result in self.results.values()
            if area in ("", result.promise.area)
            and verdict in ("", result.verdict)
            and feature in ("", result.promise.feature)
        ]

    def areas(self) -> list[str]:
        return [area for area in AREAS if self.of(area)]

    def untested(self) -> list[Scenario]:
        """Promises that this run had no test of."""
        return [promise for name, promise in catalogue().items() if name not in self.results]


def reasons(results: list[Result]) -> list[tuple[str, list[str]]]:
    """Each distinct reason once, with the IDs it holds for; the most frequent first."""
    found: dict[str, list[str]] = {}
    for result in results:
        found.setdefault(result.reason, []).append(result.promise.id)
    return sorted(found.items(), key=lambda pair: -len(pair[1]))


def walk(step: Step) -> Iterator[Step | Exchange | Attachment]:
    """All parts below a step, in order."""
    for part in step.parts:
        yield part
        if isinstance(part, Step):
            yield from walk(part)

"""A recorded run as objects: what every report is drawn from."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inferencebox.errors import SetupProblem
from inferencebox.journal import RUN_FILE, attachment_text, read
from inferencebox.scenarios import AREAS, Scenario, catalogue

VERDICTS = ("passed", "failed", "error", "not exercised")
_WORST_FIRST = ("failed", "error", "not exercised", "passed")
NEVER_ENDED = "the run ended before there was a verdict"
KILL_MATRIX = "kill-matrix.yaml"
"""What `ibox sabotage` leaves beside the run: {sabotage: {scenario: verdict}}, with expected ones under "expected"."""

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
        return next(verdict for verdict in _WORST_FIRST if any(item.verdict == verdict for item in self.items))

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

    @classmethod
    def load(cls, path: Path) -> "Run":
        """Reads a recorded run.

        Raises:
            SetupProblem: there is none, or the file is something else.
        """
        events = read(path)
        if not events or events[0].get("event") != "run-started":
            raise SetupProblem(f"{path} holds no run", "run the suite first: pytest, or ibox test")
        file = path / RUN_FILE if path.is_dir() else path
        return _assemble(file, events)

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
        return self.platform.get("versions") or {}

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


@dataclass
class _Reader:
    """Puts the events of interleaved scenarios together."""

    folder: Path
    items: dict[str, Item] = field(default_factory=dict)
    scenarios: dict[str, str] = field(default_factory=dict)
    steps: dict[tuple[str, str], Step] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        name = str(event.get("item", ""))
        if event["event"] == "scenario-started":
            self._start(name, event)
        elif name in self.items:
            take = getattr(self, "_" + str(event["event"]), None)
            if take is not None:
                take(name, event)

    def _start(self, name: str, event: Event) -> None:
        self.scenarios[name] = str(event["scenario"])
        sabotage = tuple(event.get("sabotage", ()))
        self.items[name] = Item(name, str(event["title"]), str(event.get("story", "")), float(event["at"]), sabotage)
        self.steps[name, ""] = self.items[name].root

    def _place(self, name: str, step: object) -> Step:
        return self.steps.get((name, str(step)), self.items[name].root)

    def _step(self, name: str, event: Event) -> None:
        key = (name, str(event["step"]))
        if event["phase"] == "begin":
            self.steps[key] = Step(key[1], str(event["title"]), str(event.get("kind", "")), float(event["at"]))
            self._place(name, event.get("parent", "")).parts.append(self.steps[key])
        elif key in self.steps:
            step = self.steps[key]
            step.outcome, step.reason = str(event["outcome"]), str(event.get("reason", ""))
            step.seconds, step.exchanges = float(event["seconds"]), int(event.get("exchanges", 0))

    def _exchange(self, name: str, event: Event) -> None:
        omitted = int(event.get("omitted", 0))
        exchange = Exchange(event["request"], event["response"], str(event["command"]), float(event["at"]), omitted)
        self._place(name, event.get("step", "")).parts.append(exchange)

    def _attachment(self, name: str, event: Event) -> None:
        body = attachment_text(self.folder, event)
        attachment = Attachment(str(event["title"]), str(event["mime"]), str(event["kind"]), body, float(event["at"]))
        self._place(name, event.get("step", "")).parts.append(attachment)

    def _verdict(self, name: str, event: Event) -> None:
        item = self.items[name]
        item.verdict, item.reason = str(event["verdict"]), str(event.get("reason", ""))
        item.where, item.detail = str(event.get("where", "")), str(event.get("detail", ""))
        item.seconds, item.ended = float(event["seconds"]), float(event["at"])


def _assemble(file: Path, events: list[dict[str, object]]) -> Run:
    reader = _Reader(file.parent)
    for event in events:
        reader.take(event)
    by_promise: dict[str, list[Item]] = {}
    for name, item in reader.items.items():
        by_promise.setdefault(reader.scenarios[name], []).append(item)
    order = catalogue()
    last: Event = events[-1]
    finished = last.get("event") == "run-finished"
    capabilities = next((event["capabilities"] for event in events if event["event"] == "capabilities"), {})
    assert isinstance(capabilities, dict)
    return Run(
        folder=file.parent,
        facts=events[0],
        results={name: Result(order[name], by_promise[name]) for name in order if name in by_promise},
        layers=[event for event in events if event["event"] == "layer"],
        capabilities=capabilities,
        digest=hashlib.sha256(file.read_bytes()).hexdigest(),
        ended=float(last.get("at", 0.0)),
        exit_code=int(last["exit"]) if finished else None,
        kill_matrix=_kill_matrix(file.parent / KILL_MATRIX),
    )


def _kill_matrix(file: Path) -> Mapping[str, Any]:
    found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found if isinstance(found, dict) else {}

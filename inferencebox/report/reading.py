"""Puts a recorded run together from its events."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inferencebox.errors import SetupProblem
from inferencebox.journal import RUN_FILE, attachment_text, read
from inferencebox.report.model import Attachment, Event, Exchange, Item, Result, Run, Step
from inferencebox.scenarios import catalogue

KILL_MATRIX = "kill-matrix.yaml"
"""What `ibox sabotage` leaves beside a run: {matrix: {sabotage: {ID: verdict}}, expected: {sabotage: [ID]}}."""


def load(path: Path) -> Run:
    """Reads a recorded run: a run.jsonl, or the folder it is in.

    Raises:
        SetupProblem: there is none, or the file is something else.
    """
    events = read(path)
    if not events or events[0].get("event") != "run-started":
        raise SetupProblem(f"{path} holds no run", "run the suite first: pytest, or ibox test")
    return _assemble(path / RUN_FILE if path.is_dir() else path, events)


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

"""Benchmarks of models and their history: what a model did before on the same machine, and whether it does worse now.

The history is `history/benchmarks.jsonl` in the folder of reports, one JSON object a line, the oldest first. Only runs
of the same subject are held against each other: same provider, release, machine, model, load and figure.
"""

import json
import os
import platform as machine
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from inferencebox.load import Load

FILE = Path("history") / "benchmarks.jsonl"
TOLERANCE = 0.25
"""SPEC, SCL-16: more than 25 % worse is a regression."""
REMEMBERED = 5
"""The newest runs, whose median is what a run is held against: one lucky or unlucky run decides nothing."""


@dataclass(frozen=True)
class Subject:
    """What was measured.

    Args:
        users: how many asked at the same time.
        machine: what it ran on; figures of different machines say nothing about each other.
        figure: which figure of its rounds stands for a run; a median says nothing about a best.
    """

    provider: str
    release: str
    model: str
    users: int
    machine: str = field(default_factory=lambda: f"{machine.machine()}, {os.cpu_count()} CPUs")
    figure: str = "median of rounds"


@dataclass(frozen=True)
class Benchmark:
    """One measurement.

    Args:
        p95: seconds within which 95 % of the replies came.
        throughput: good replies per second.
        at: when, in seconds since 1970.
    """

    subject: Subject
    p95: float
    throughput: float
    at: float = field(default_factory=time.time)

    def __str__(self) -> str:
        return f"p95 {1000 * self.p95:.1f} ms, {self.throughput:.1f} replies a second"


def typical(subject: Subject, rounds: Sequence[Load]) -> Benchmark:
    """Of several rounds the medians: a moment in which the machine did something else, or nothing at all, decides
    nothing. The best round does not do: 95 % of a hundred requests are few, and of three such figures the least is
    luck, the more the wider they are spread."""
    return Benchmark(
        subject,
        statistics.median(each.window.p95 for each in rounds),
        statistics.median(each.throughput for each in rounds),
    )


def regressions(now: Benchmark, before: Sequence[Benchmark], tolerance: float = TOLERANCE) -> list[str]:
    """In which ways it is worse than it was, by more than the tolerance; nothing without a history."""
    if not before:
        return []
    newest = before[-REMEMBERED:]
    p95 = statistics.median(each.p95 for each in newest)
    throughput = statistics.median(each.throughput for each in newest)
    found = []
    if now.p95 > p95 * (1 + tolerance):
        found.append(f"p95 was {1000 * p95:.1f} ms and is {1000 * now.p95:.1f} ms ({now.p95 / p95 - 1:+.0%})")
    if now.throughput < throughput * (1 - tolerance):
        change = now.throughput / throughput - 1
        found.append(f"it gave {throughput:.1f} replies a second and gives {now.throughput:.1f} ({change:+.0%})")
    return found


@dataclass(frozen=True)
class History:
    """The benchmarks of earlier runs.

    Args:
        reports: folder of reports.
    """

    reports: Path

    @property
    def file(self) -> Path:
        return self.reports / FILE

    def of(self, subject: Subject) -> list[Benchmark]:
        """What was measured before of the same subject, the oldest first."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        entries = [json.loads(line) for line in lines]
        return [
            Benchmark(subject, entry["p95"], entry["throughput"], entry["at"])
            for entry in entries
            if entry["subject"] == asdict(subject)
        ]

    def add(self, benchmark: Benchmark) -> None:
        """Store one."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps(asdict(benchmark)) + "\n")

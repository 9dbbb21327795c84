"""What was used, added up from counters that may start anew at any time."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chargeback.errors import SetupProblem


@dataclass(frozen=True)
class Reading:
    """One counter as it stands.

    Args:
        quantity: ``requests``, ``tokens`` or ``cpu_seconds``.
        series: what tells this counter from all others.
        source: who tells it: a process that was asked for all of its counters.
    """

    quantity: str
    tenant: str
    model: str
    series: str
    source: str
    value: float


@dataclass
class Usage:
    requests: float = 0.0
    tokens: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.requests + other.requests, self.tokens + other.tokens, self.cpu_seconds + other.cpu_seconds)


@dataclass
class Ledger:
    """Usage of each (tenant, model) since the ledger was begun.

    A counter seen for the first time has counted from zero; one that is lower than before was started anew, and so was
    one that was gone while its source still told others (Envoy drops counters with the listener they belong to). What
    stood where is kept in the file, so that a restart of this program neither loses nor counts anything twice.
    """

    file: Path
    used: dict[tuple[str, str], Usage] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, file: Path) -> "Ledger":
        """The ledger in this file, or a new one.

        Raises:
            SetupProblem: the file is there and is no ledger; it is left as it is.
        """
        if not file.exists():
            return cls(file)
        try:
            content = json.loads(file.read_text())
            used = {(entry["tenant"], entry["model"]): Usage(**entry["usage"]) for entry in content["used"]}
            return cls(file, used, dict(content["seen"]), dict(content.get("sources", {})))
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise SetupProblem(f"{file} is no ledger: {problem}") from None

    def enter(self, readings: Iterable[Reading]) -> None:
        """Take in what all counters say now."""
        now = {f"{reading.quantity} {reading.series}": reading for reading in readings}
        self._forget_dropped(now)
        for key, reading in now.items():
            before = self.seen.get(key, 0.0)
            grown = reading.value - before if reading.value >= before else reading.value
            self.seen[key], self.sources[key] = reading.value, reading.source
            usage = self.used.setdefault((reading.tenant, reading.model), Usage())
            setattr(usage, reading.quantity, getattr(usage, reading.quantity) + grown)
        self._write()

    def _forget_dropped(self, now: Mapping[str, Reading]) -> None:
        """A source that tells nothing at all may only be out of reach: its counters go on where they were."""
        telling = {reading.source for reading in now.values()}
        for key in self.seen.keys() - now.keys():
            if self.sources.get(key) in telling:
                del self.seen[key], self.sources[key]

    def total(self) -> Usage:
        return sum(self.used.values(), Usage())

    def rows(self) -> Mapping[tuple[str, str], Usage]:
        return dict(sorted(self.used.items()))

    def _write(self) -> None:
        used = [{"tenant": t, "model": m, "usage": asdict(usage)} for (t, m), usage in self.used.items()]
        partial = self.file.with_suffix(".new")
        partial.write_text(json.dumps({"used": used, "seen": self.seen, "sources": self.sources}))
        partial.replace(self.file)

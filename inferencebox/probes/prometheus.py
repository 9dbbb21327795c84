"""Prometheus as a probe: instant queries, before/after windows of counters, alerts, rules and targets.

Counters start anew with their process. `Growth` compares two moments series by series, so that a restart in between
loses nothing that was counted after it, as PromQL's `increase` does, but without its extrapolation: what was counted is
an exact number.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from inferencebox import evidence
from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint
from inferencebox.probes.reading import read

RELOAD_SECONDS = 30.0
KNOWN = "1m"
"""For so long what a target told counts while nothing newer is known: one scrape that fails takes all series away."""
FAILED_WRITES = "prometheus_tsdb_wal_writes_failed_total "
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Vector:
    """The answer to an instant query."""

    query: str
    series: Mapping[Labels, float]

    @property
    def total(self) -> float:
        """Sum of all series; nothing counted is 0."""
        return sum(self.series.values())

    def by(self, *names: str) -> dict[tuple[str, ...], float]:
        """Sums by some labels; a series without one has it empty."""
        sums: dict[tuple[str, ...], float] = {}
        for labels, value in self.series.items():
            known = dict(labels)
            key = tuple(known.get(name, "") for name in names)
            sums[key] = sums.get(key, 0.0) + value
        return sums

    def labels(self, name: str) -> set[str]:
        """The values that a label has."""
        return {value for labels in self.series for key, value in labels if key == name}

    def __str__(self) -> str:
        return f"{len(self.series)} series, in all {self.total:g}"


@dataclass(frozen=True)
class Alert:
    """An alert as Prometheus has it now.

    Args:
        state: pending or firing.
        since: when it became pending, as Prometheus writes it.
    """

    name: str
    state: str
    labels: Mapping[str, str]
    since: str


@dataclass(frozen=True)
class Target:
    """What Prometheus scrapes, and whether it could the last time.

    Args:
        url: where it scrapes.
        scraped: when it last did, as Prometheus says; of the same target two are only alike or not.
    """

    job: str
    labels: Mapping[str, str]
    health: str
    error: str
    url: str
    scraped: str


@dataclass(frozen=True)
class Prometheus:
    """A client of one Prometheus, or of a door to it.

    Args:
        endpoint: where it answers.
        path: prefix of its API.
    """

    endpoint: Endpoint
    path: str = ""

    def query(self, query: str) -> Vector:
        """What a query gives now.

        Raises:
            SetupProblem: Prometheus does not answer, or refuses the query.
        """
        found = self._get("/api/v1/query", query=query)["result"]
        vector = Vector(query, {_labels(each["metric"]): float(each["value"][1]) for each in found})
        evidence.note("PromQL", f"{query}\n{vector}")
        return vector

    def ask(self, query: str) -> Callable[[], Vector]:
        """The same as a probe."""
        return lambda: self.query(query)

    def range(self, query: str, start: float, end: float, step: float) -> dict[Labels, list[tuple[float, float]]]:
        """What a query gave from one moment to another: (seconds since 1970, value) of each series."""
        found = self._get("/api/v1/query_range", query=query, start=start, end=end, step=step)["result"]
        return {_labels(each["metric"]): [(at, float(value)) for at, value in each["values"]] for each in found}

    def growth(self, selector: str) -> "Growth":
        """Of counters, from now on: ``growth()`` is by how much they have grown, as far as is known."""
        query = f"last_over_time({selector}[{KNOWN}])"
        return Growth(self, query, self.query(query))

    def lately(self, query: str, seconds: float) -> float:
        """By how much the total of counters has grown within the last seconds; what was not there yet counts as 0."""
        return self.query(query).total - self.query(f"{query} offset {seconds:.0f}s").total

    def alerts(self, name: str = "", **labels: str) -> list[Alert]:
        """Alerts that are pending or firing and have these labels."""
        found = [
            Alert(each["labels"]["alertname"], each["state"], each["labels"], each["activeAt"])
            for each in self._get("/api/v1/alerts")["alerts"]
        ]
        return [
            alert
            for alert in found
            if name in ("", alert.name) and all(alert.labels.get(key) == value for key, value in labels.items())
        ]

    def require_storing(self) -> None:
        """With a full disk Prometheus 2.42 says that it is ready and its targets are up, and forgets what it scrapes.

        Raises:
            SetupProblem: it has failed to write what it scraped, as it says at its own `/metrics`.
        """
        own = self._reply("/metrics").text
        failed = sum(float(line.split()[-1]) for line in own.splitlines() if line.startswith(FAILED_WRITES))
        if failed:
            raise SetupProblem(
                f"Prometheus cannot keep what it scrapes: {failed:.0f} writes failed",
                "free disk space where its data is, then restart it; its log has the reason",
            )

    def rules(self) -> dict[str, list[dict[str, Any]]]:
        """The rules that are loaded, by group."""
        return {group["name"]: group["rules"] for group in self._get("/api/v1/rules")["groups"]}

    def read_rules_anew(self, name: str, file: str) -> None:
        """Have it read its files again, for one with rules has changed; in force when this returns.

        Args:
            name: of the rules.
            file: where they are, for people.

        Raises:
            SetupProblem: it refuses them, in its words.
        """
        reply = httpx.post(f"{self.endpoint.url}/-/reload", timeout=RELOAD_SECONDS, trust_env=False)
        if reply.is_error:
            raise SetupProblem(f"Prometheus does not take the rules {name}: {reply.text.strip()}", f"mend {file}")

    def targets(self) -> list[Target]:
        found = self._get("/api/v1/targets", state="active")["activeTargets"]
        return [
            Target(
                job=each["labels"]["job"],
                labels=each["labels"],
                health=each["health"],
                error=each["lastError"],
                url=each["scrapeUrl"],
                scraped=each["lastScrape"],
            )
            for each in found
        ]

    def _reply(self, path: str, **params: Any) -> httpx.Response:
        url = f"{self.endpoint.url}{self.path}{path}"
        try:
            return read(url, **params)
        except httpx.HTTPError as problem:
            raise _silent(path, problem) from None

    def _get(self, path: str, **params: Any) -> Any:
        reply = self._reply(path, **params)
        try:
            content = reply.json()
        except ValueError as problem:
            raise _silent(path, problem) from None
        if content.get("status") != "success":
            raise SetupProblem(f"Prometheus refuses {params}: {content.get('error')}", "correct the query")
        return content["data"]


def _silent(path: str, problem: Exception) -> SetupProblem:
    return SetupProblem(f"Prometheus does not answer {path} ({problem})", "see the log prometheus.log")


@dataclass(frozen=True)
class Growth:
    """By how much counters have grown since a moment; a probe.

    A series that was not there has grown from 0. One that is lower than it was has started anew and grown from 0 since.
    """

    prometheus: Prometheus
    query: str
    before: Vector = field(repr=False)

    def __call__(self) -> Vector:
        now = self.prometheus.query(self.query)
        return Vector(self.query, grown(self.before.series, now.series))


def grown(before: Mapping[Labels, float], now: Mapping[Labels, float]) -> dict[Labels, float]:
    """Growth of each series between two moments."""
    found = {}
    for labels, value in now.items():
        was = before.get(labels, 0.0)
        found[labels] = value - was if value >= was else value
    return found


def nearly(wanted: float, share: float) -> tuple[float, float]:
    """From where to where a sum may lie that is promised within a share, as 0.02."""
    room = math.fabs(wanted) * share
    return wanted - room, wanted + room


def _labels(metric: Mapping[str, str]) -> Labels:
    return tuple(sorted(metric.items()))

"""Jaeger as a probe: the spans of one trace, and the traces of a service.

The JSON of Jaeger's query API (`/api/traces`), which its own user interface uses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from inferencebox import evidence
from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint
from inferencebox.probes.reading import read


@dataclass(frozen=True)
class Span:
    """One span.

    Args:
        service: who made it.
        parent: id of the span it belongs to; empty for the first.
        start, milliseconds: when it began (seconds since 1970) and how long it took.
        tags: what it says of itself.
    """

    trace: str
    id: str
    parent: str
    service: str
    name: str
    start: float
    milliseconds: float
    tags: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def failed(self) -> bool:
        return self.tags.get("error") in (True, "true")


@dataclass(frozen=True)
class Jaeger:
    """A client of one query port of Jaeger."""

    endpoint: Endpoint

    def trace(self, trace_id: str) -> Callable[[], list[Span]]:
        """A probe: the spans of this trace, oldest first; none while there is no such trace."""

        def ask() -> list[Span]:
            found = _spans(self._get(f"/api/traces/{trace_id}"))
            if found:
                evidence.note("trace", "\n".join(map(_line, found)))
            return found

        return ask

    def services(self) -> list[str]:
        return sorted(self._get("/api/services").get("data") or ())

    def traces(self, service: str, **query: Any) -> list[Span]:
        """Spans of the traces that a service has part in, newest traces first."""
        return _spans(self._get("/api/traces", service=service, **query))

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        try:
            reply = read(f"{self.endpoint.url}{path}", **params)
            return {} if reply.status_code == 404 else dict(reply.raise_for_status().json())
        except (httpx.HTTPError, ValueError) as problem:
            raise SetupProblem(f"Jaeger does not answer {path} ({problem})", "see the log jaeger.log") from None


def _spans(content: Mapping[str, Any]) -> list[Span]:
    found = []
    for trace in content.get("data") or ():
        services = {key: process["serviceName"] for key, process in trace["processes"].items()}
        found += [_span(each, services) for each in trace["spans"]]
    return sorted(found, key=lambda span: span.start)


def _span(entry: Mapping[str, Any], services: Mapping[str, str]) -> Span:
    parents = [each["spanID"] for each in entry.get("references", ()) if each["refType"] == "CHILD_OF"]
    return Span(
        trace=entry["traceID"],
        id=entry["spanID"],
        parent=parents[0] if parents else "",
        service=services[entry["processID"]],
        name=entry["operationName"],
        start=entry["startTime"] / 1e6,
        milliseconds=entry["duration"] / 1e3,
        tags={tag["key"]: tag["value"] for tag in entry.get("tags", ())},
    )


def _line(span: Span) -> str:
    return f"{span.service}: {span.name}, {span.milliseconds:.1f} ms{' FAILED' if span.failed else ''}"

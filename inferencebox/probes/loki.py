"""Loki as a probe: log lines that a LogQL query finds, and what it says of an organisation's limits.

Facts: Loki's HTTP API (docs/sources/reference/loki-http-api.md of its module).
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
import yaml

from inferencebox import evidence
from inferencebox.errors import SetupProblem
from inferencebox.platform import Endpoint
from inferencebox.probes.reading import TIMEOUT_SECONDS, read

EVERYTHING = "platform"
"""The organisation of the platform's own people, which has every line."""
LINES_AT_MOST = 1000


@dataclass(frozen=True)
class Line:
    """One line.

    Args:
        at: when it was written, seconds since 1970.
        labels: of its stream.
    """

    at: float
    labels: Mapping[str, str] = field(repr=False)
    text: str

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What a line of JSON says; nothing for another."""
        try:
            return dict(json.loads(self.text))
        except ValueError:
            return {}


@dataclass(frozen=True)
class Loki:
    """A client that reads one organisation's lines.

    Args:
        endpoint: Loki itself, past the gateway.
        organisation: whose lines.
    """

    endpoint: Endpoint
    organisation: str = EVERYTHING

    def lines(self, query: str, since: float | None = None) -> Callable[[], list[Line]]:
        """A probe: the lines that a LogQL query finds, oldest first.

        Args:
            since: seconds since 1970; default: the last hour.
        """
        start = since if since is not None else time.time() - 3600

        def ask() -> list[Line]:
            content = self._get(
                "/loki/api/v1/query_range",
                query=query,
                start=f"{start - 1:.3f}",
                end=f"{time.time() + 60:.3f}",
                limit=LINES_AT_MOST,
                direction="forward",
            )
            found = lines_of(content)
            if found:
                evidence.note(f"Loki, {query}", "\n".join(line.text for line in found[:20]))
            return found

        return ask

    def limits(self) -> dict[str, Any]:
        """What holds for this organisation, as the running Loki says (`/config/tenant/v1/limits`)."""
        return dict(yaml.safe_load(self._ask("/config/tenant/v1/limits").text))

    def forget(self, query: str) -> int:
        """The status of Loki's answer to a wish to delete what a query finds (`POST /loki/api/v1/delete`)."""
        url, headers = f"{self.endpoint.url}/loki/api/v1/delete", {"X-Scope-OrgID": self.organisation}
        wish = {"query": query, "start": "0"}
        return httpx.post(url, params=wish, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False).status_code

    def configuration(self) -> dict[str, Any]:
        """What the running Loki was told, with its defaults (`/config`)."""
        return dict(yaml.safe_load(self._ask("/config").text))

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return dict(self._ask(path, **params).json())

    def _ask(self, path: str, **params: Any) -> httpx.Response:
        url, headers = f"{self.endpoint.url}{path}", {"X-Scope-OrgID": self.organisation}
        try:
            return read(url, headers, **params).raise_for_status()
        except httpx.HTTPError as problem:
            raise SetupProblem(f"Loki does not answer {path} ({problem})", "see the log loki.log") from None


def lines_of(content: Mapping[str, Any]) -> list[Line]:
    """The lines of a reply of `/loki/api/v1/query_range`, oldest first."""
    found = [
        Line(int(nanoseconds) / 1e9, stream["stream"], text)
        for stream in content["data"]["result"]
        for nanoseconds, text, *_ in stream["values"]
    ]
    return sorted(found, key=lambda line: line.at)

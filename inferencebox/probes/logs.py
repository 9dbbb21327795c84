"""Access logs as probes: what each gateway wrote down about a request.

Every provider keeps its logs in `Platform.logs`, one file per process or pod. Access logs are JSON, one object a line:
tier 1 in the format of our EnvoyProxy (manifests/gateway/proxy), Istio's proxies in Istio's own
(`pilot/pkg/model/telemetry_logging.go`, `EnvoyJSONLogFormatIstio`). The names of both are brought together here.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from inferencebox import evidence
from inferencebox.platform import Platform

FILES = {"tier-1": "*tier-1-access*.log", "tier-2": "*istio-ingressgateway*.log"}
KNATIVE_HOP = "knative-local-gateway"
"""In the server name asked for: tier 2's proxies also carry Knative's routes, to which tier 2 hands a request on."""
READ_LIMIT = 32 * 1024 * 1024
"""Bytes of each log, from its end, that are looked at."""
_NAMES = {
    "start_time": "time",
    "response_code": "status",
    "response_code_details": "details",
    "upstream_host": "upstream",
    "authority": "host",
}


@dataclass(frozen=True)
class Entry:
    """One request as a gateway logged it.

    Args:
        tier: whose log it is in.
        at: when the gateway received the request, seconds since 1970.
        details: why it ended so, in Envoy's words (`via_upstream`, `jwt_authn_access_denied{...}`).
        upstream: the address it was sent to; empty if it was sent nowhere.
        fields: everything that was logged.
    """

    tier: str
    request_id: str
    at: float
    method: str
    path: str
    status: int
    details: str
    host: str
    upstream: str
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def entries(platform: Platform, tier: str, request_id: str) -> Callable[[], list[Entry]]:
    """A probe: the entries of a request in the access log of a tier, oldest first.

    Gateways write late (buffers, log shippers): ask with `eventually`.

    Args:
        tier: `tier-1` or `tier-2`.
    """

    def ask() -> list[Entry]:
        found = sorted(_found(platform.logs, tier, request_id), key=lambda entry: entry.at)
        for entry in found:
            evidence.note(f"{tier}'s access log", json.dumps(entry.fields))
        return found

    return ask


def _found(folder: Path, tier: str, request_id: str) -> Iterator[Entry]:
    wanted = request_id.encode()
    for log in sorted(folder.glob(FILES[tier])):
        for line in _tail(log).splitlines():
            if wanted in line and (entry := _read(tier, line)) and entry.request_id == request_id:
                yield entry


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - READ_LIMIT))
        return file.read()


def _read(tier: str, line: bytes) -> Entry | None:
    """One line; nothing for what is no entry of an access log (the proxies' other messages, a line half written), and
    for a request that tier 2 handed on to the Knative route on its own proxies: it has an entry as it came in."""
    try:
        fields = json.loads(line)
        if KNATIVE_HOP in str(fields.get("requested_server_name")):
            return None
        named = {_NAMES.get(name, name): value for name, value in fields.items()}
        return Entry(
            tier=tier,
            request_id=str(named["request_id"]),
            at=datetime.fromisoformat(named["time"]).timestamp(),
            method=str(named["method"]),
            path=str(named["path"]),
            status=int(named["status"]),
            details=str(named.get("details") or ""),
            host=str(named.get("host") or ""),
            upstream=str(named.get("upstream") or "").replace("-", ""),
            fields=fields,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None

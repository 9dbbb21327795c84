"""What every platform can show. Each provider says itself what else it can, and why it can't show the rest."""

from .options import LOGS, TELEMETRY

NOT_ASKED_FOR = "telemetry was not brought up with this platform (ibox up without --no-telemetry)"
LOGS_NOT_ASKED_FOR = (
    "logs are not collected on this platform: left out (--no-logs), or not built yet where only what is built was "
    "wanted (ibox build loki log-collector)"
)
EVERYWHERE: dict[str, str | None] = dict.fromkeys(
    (
        "gateway",
        "gateway.jwt",
        "gateway.tls",
        "gateway.cors",
        "gateway.retries",
        "gateway.breaker",
        "ai-gateway",
        "ratelimit",
        "mesh",
        "mesh.mtls",
        "mesh.authz",
        "mesh.traffic",
        "mesh.locality",
        "workloads",
        "models",
        "packets",
        "kubernetes",
        "kubernetes.rbac",
        "kubernetes.quota",
        "kubernetes.scheduler",
        "outages",
        "logs",
        "processes",
        "kserve.api",
        "upgrade",
    )
)


def telemetry(there: bool) -> dict[str, str | None]:
    """What a platform with telemetry, or without, can show of it."""
    return dict.fromkeys(TELEMETRY, None if there else NOT_ASKED_FOR)


def logs(there: bool) -> dict[str, str | None]:
    """What a platform that collects logs, or does not, can show of them."""
    return dict.fromkeys(LOGS, None if there else LOGS_NOT_ASKED_FOR)

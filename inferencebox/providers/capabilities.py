"""What every platform can show. Each provider says itself what else it can, and why it can't show the rest."""

from .options import TELEMETRY

NOT_ASKED_FOR = "telemetry was not brought up with this platform (ibox up without --no-telemetry)"
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
    )
)


def telemetry(there: bool) -> dict[str, str | None]:
    """What a platform with telemetry, or without, can show of it."""
    return dict.fromkeys(TELEMETRY, None if there else NOT_ASKED_FOR)

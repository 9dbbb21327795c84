"""What every platform can show. Each provider says itself what else it can, and why it can't show the rest."""

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

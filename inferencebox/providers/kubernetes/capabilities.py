"""What a platform on a cluster can show, and why it can't show the rest."""

from inferencebox.providers.capabilities import EVERYWHERE

NOT_BUILT = "not part of the platform on Kubernetes yet"

CAPABILITIES: dict[str, str | None] = {
    **EVERYWHERE,
    "gateway.survives-controller": None,
    "pods": None,
    "autoscaling": None,
    "networkpolicy": None,
    "pod-logs": None,
    "cert-manager": None,
    "grafana": NOT_BUILT,
    "kiali": NOT_BUILT,
    "loki": NOT_BUILT,
    "management": None,
}

"""What the local platform can show, and why it can't show the rest."""

from inferencebox.providers.capabilities import EVERYWHERE

NO_KUBELET = "no kubelet on the local provider: no pod ever runs (use --provider kind)"
NO_KNATIVE = "Knative and KServe controllers need running pods (use --provider kind)"
NO_TREES = (
    "Grafana is a program and the tree of files beside it, and out of vendors' images the local provider takes single "
    "programs (use --provider kind where a registry answers)"
)
NO_MAP = "Kiali draws Deployments and pods, and no pod ever runs here (use --provider kind where a registry answers)"
NOT_BUILT = "not part of the local platform yet"

ONE_PROCESS_TREE = (
    "Envoy is a child process of envoy-gateway on the local provider and ends with it, a second or three without an "
    "entrance; in a cluster it has a pod of its own (use --provider kind)"
)

CAPABILITIES: dict[str, str | None] = {
    **EVERYWHERE,
    "gateway.survives-controller": ONE_PROCESS_TREE,
    "pods": NO_KUBELET,
    "autoscaling": NO_KNATIVE,
    "autoscaling.hpa": NO_KNATIVE,
    "networkpolicy": NO_KUBELET,
    "pod-logs": NO_KUBELET,
    "cert-manager": "cert-manager is not part of the local platform (use --provider kind)",
    "grafana": NO_TREES,
    "kiali": NO_MAP,
    "management": None,
    "kubernetes.audit": None,
}

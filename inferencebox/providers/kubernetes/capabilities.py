"""What a platform on a cluster can show: claimed here with the parts that it takes, confirmed by asking the cluster."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from subprocess import TimeoutExpired
from types import MappingProxyType

from inferencebox import policies
from inferencebox.layers.readiness import why_not_ready
from inferencebox.platform import Platform
from inferencebox.polling import poll
from inferencebox.probes.kubernetes import Kube
from inferencebox.providers.capabilities import EVERYWHERE, NOT_ASKED_FOR

STATUS_PORT = 15021
"""Of a sidecar: where it says whether it is ready, to whoever gets that far. No tenant's NetworkPolicy allows it."""
API_SERVER = "component=kube-apiserver"
SECONDS = 3
AT_ONCE = 8
SETTLED_SECONDS = 60.0
"""A part that was ready a moment ago may miss a probe while the machine is still busy with the last layers."""

CAPABILITIES: dict[str, str | None] = {
    **EVERYWHERE,
    "gateway.survives-controller": None,
    "pods": None,
    "autoscaling": None,
    "autoscaling.hpa": None,
    "networkpolicy": None,
    "pod-logs": None,
    "cert-manager": None,
    "grafana": NOT_ASKED_FOR,
    "kiali": NOT_ASKED_FOR,
    "kubernetes.audit": None,
    "management": None,
    "processes": "in a cluster not every program is asked its version yet: not the nodes', nor those without a flag",
}
"""As declared; telemetry and logs by whether they were wished for, what one layer gives by whether it could be had."""
SHARED: dict[str, str | None] = {
    "upgrade": "a run holds a cluster that others use too, and nobody brings another release up there meanwhile",
}
"""What can't be shown on somebody's cluster."""


@dataclass(frozen=True)
class Part:
    """An object that must be there and ready."""

    kind: str
    namespace: str | None
    name: str

    def missing(self, kube: Kube, seconds: float) -> str | None:
        """Why it can't be counted on: it is not there, or not ready after so many seconds either."""
        called = f"{self.kind.partition('.')[0]} {f'{self.namespace}/' if self.namespace else ''}{self.name}"
        reply = poll(
            lambda: kube.get(self.kind, self.name, self.namespace),
            seconds,
            every=1.0,
            until=lambda found: not found.ok or why_not_ready(found.object) is None,
        )
        if not reply.ok:
            return f"the cluster has no {called}"
        why = why_not_ready(reply.object)
        return f"{called} is not ready: {why}" if why else None


def _deployment(namespace: str, *names: str) -> tuple[Part, ...]:
    return tuple(Part("deployment", namespace, name) for name in names)


_GATEWAY = (Part("gateway.gateway.networking.k8s.io", policies.GATEWAY_NAMESPACE, policies.GATEWAY),)
_MESH = _deployment("istio-system", "istiod", "istio-ingressgateway")

PARTS: Mapping[str, Sequence[Part]] = {
    **{name: _GATEWAY for name in EVERYWHERE if name.partition(".")[0] == "gateway"},
    **{name: _MESH for name in EVERYWHERE if name.partition(".")[0] == "mesh"},
    "gateway.jwt": (*_GATEWAY, *_deployment("default", "jwt-server")),
    "gateway.tls": (*_GATEWAY, Part("secret", policies.GATEWAY_NAMESPACE, "ai-gateway-tls")),
    "gateway.survives-controller": _GATEWAY,
    "ai-gateway": (*_GATEWAY, *_deployment("envoy-ai-gateway-system", "ai-gateway-controller")),
    "ratelimit": (*_GATEWAY, *_deployment("envoy-gateway-system", "envoy-ratelimit", "redis")),
    "kserve.api": (Part("customresourcedefinition", None, "inferenceservices.serving.kserve.io"),),
    "autoscaling": (
        *_deployment("knative-serving", "activator", "autoscaler", "controller"),
        *_deployment("kserve", "kserve-controller-manager"),
    ),
    "autoscaling.hpa": (
        Part("apiservice.apiregistration.k8s.io", None, "v1beta1.metrics.k8s.io"),
        *_deployment("knative-serving", "autoscaler-hpa"),
    ),
    "cert-manager": (
        Part("customresourcedefinition", None, "certificates.cert-manager.io"),
        *_deployment("cert-manager", "cert-manager"),
    ),
    "management": _deployment("default", "management"),
    "prometheus": _deployment("monitoring", "prometheus"),
    "alertmanager": _deployment("monitoring", "alertmanager"),
    "jaeger": _deployment("monitoring", "jaeger"),
    "chargeback": _deployment("monitoring", "chargeback"),
    "loki": (*_deployment("monitoring", "loki"), Part("daemonset", "monitoring", "log-collector")),
    "grafana": _deployment("monitoring", "grafana"),
    "kiali": _deployment("monitoring", "kiali"),
    "packets": (Part("pod", "inferencebox", "beside"),),
}
"""What it takes; what is offered without an entry takes nothing but Kubernetes itself."""


def confirmed(
    platform: Platform,
    kube: Kube,
    declared: Mapping[str, str | None] = MappingProxyType(CAPABILITIES),
    seconds: float = SETTLED_SECONDS,
) -> dict[str, str | None]:
    """What is declared, and of that what this cluster can't show after all, with the reason.

    Args:
        seconds: that a part may take to get ready (again).
    """
    asked = list({part for parts in PARTS.values() for part in parts})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        missing = dict(zip(asked, pool.map(lambda part: part.missing(kube, seconds), asked), strict=True))
    found = {
        name: why or next((gap for part in PARTS.get(name, ()) if (gap := missing[part])), None)
        for name, why in declared.items()
    }
    return {
        **found,
        "networkpolicy": declared["networkpolicy"] or _why_not_enforced(platform),
        "kubernetes.audit": declared["kubernetes.audit"] or _why_not_audited(kube),
    }


def _why_not_audited(kube: Kube) -> str | None:
    """Seen by what the API servers of the cluster were started with."""
    wanted = f"--audit-log-path={policies.kubernetes_audit_log()}"
    servers = kube.list("pods", "kube-system", API_SERVER).items
    containers = [container for pod in servers for container in pod["spec"]["containers"]]
    if any(wanted in [*container.get("command", []), *container.get("args", [])] for container in containers):
        return None
    return f"the cluster's API server does not note what is done (no {wanted} among its flags)"


def _why_not_enforced(platform: Platform) -> str | None:
    """Seen by trying: a pod of another namespace must not get where somebody on the node does."""
    (inside, *_), (outside, *_) = (
        platform.workloads("tenant-a", app="client"),
        platform.workloads("default", app="outsider"),
    )
    ask = ["curl", "-s", "-o", "/dev/null", "-m", str(SECONDS), f"http://{inside.address}:{STATUS_PORT}/healthz/ready"]
    try:
        if platform.run_beside(ask).returncode != 0:
            return "whether NetworkPolicies are enforced can't be told: the node itself does not get through to a pod"
        got_through = platform.run_in(outside, ask).returncode == 0
    except TimeoutExpired:
        return "whether NetworkPolicies are enforced can't be told: no command could be run in a pod"
    return "the cluster's network does not enforce NetworkPolicies" if got_through else None

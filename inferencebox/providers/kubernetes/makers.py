"""Objects of layers that code makes: authorities, namespaces, policies, models, pods of ours."""

import base64
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from inferencebox import policies
from inferencebox.layers.documents import Maker
from inferencebox.manifests import Document, load
from inferencebox.paths import manifests_dir
from inferencebox.pki import Authority, Certificate
from inferencebox.platform import WorkloadSpec
from inferencebox.probes.kubernetes import Kube
from inferencebox.providers.kubernetes import objects, targets
from inferencebox.providers.kubernetes.platform import MONITORING, MORE_RULES, documents
from inferencebox.providers.options import PlatformOptions
from inferencebox.providers.replicas import CONTROL_PORT, MODEL_PORT, spans

TLS = "kubernetes.io/tls"
SCRAPE_INTERVAL = "5s"
"""As on `local`: alerts that are drilled look at windows of 25 s (fixtures/telemetry.py)."""
AUTHORITIES = {"edge-authority": "inferencebox edge", "mesh-authority": "inferencebox mesh"}
"""Secret in cert-manager's namespace -> name of the authority."""
AUTHORITY_NAMESPACE = "cert-manager"
KIALI = "kiali"
SIGNING_KEY = "signing-key"
SYSTEM_NAMESPACES = (
    "istio-system", "cert-manager", "knative-serving", "kserve", "envoy-gateway-system", "envoy-ai-gateway-system",
    objects.OURS,
)  # fmt: skip
SAMPLE = {"version": "v1", "max_replicas": "3", "scale_target": "60"}
"""SPEC 1.6. One replica each at least: scenarios read in it what arrived; those on scaling bring their own models."""


@dataclass(frozen=True)
class Makers:
    """Makers for one platform.

    Args:
        kube: its cluster.
        options: how it should be.
        telemetry: whether it has metrics, alerts, traces and cost.
        image: name of an image -> its reference.
    """

    kube: Kube
    options: PlatformOptions
    telemetry: bool
    image: Callable[[str], str]

    def all(self) -> dict[str, Maker]:
        plain = {
            "namespaces": self._namespaces(),
            "policies": self._policies(),
            "models": self._models(),
            "workloads": self._workloads(),
            "telemetry": telemetry(),
            "loki": loki(),
            "log-collector": log_collector(),
            "grafana": grafana(),
            "kiali": kiali(),
        }
        made = {name: Maker(_text(found), lambda found=found: found) for name, found in plain.items()}  # type: ignore[misc]
        once = {"authorities": self._authorities, "kiali-key": self._kiali_key}
        return {**made, **{name: Maker("made once", documents) for name, documents in once.items()}}

    def _namespaces(self) -> list[Document]:
        system = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in SYSTEM_NAMESPACES]
        return [*system, *policies.part_namespaces(), *policies.tenant_namespaces()]

    def _policies(self) -> list[Document]:
        values = {"envoy_image": self.image("envoy")}
        batches = policies.batches(self.options.limits, serverless=True)
        spans = load(manifests_dir() / "providers" / "kubernetes" / "spans.yaml")
        found = [*policies.proxy("kubernetes", values), *spans, *(document for batch in batches for document in batch)]
        return [document for document in found if document["kind"] != "Namespace"]

    def _models(self) -> list[Document]:
        values = {**SAMPLE, "image": self.image("model-server"), "min_replicas": "1"}
        return [
            document
            for each in policies.models()
            for document in policies.inference_service(
                each["tenant"],
                each["model"],
                {**values, "command": json.dumps(self._command(each))},
                spans(each["tenant"], each["model"]) if self.telemetry else None,
            )
        ]

    def _command(self, model: Mapping[str, str]) -> list[str]:
        ports = ["--host", "0.0.0.0", "--port", str(MODEL_PORT), "--control-port", str(CONTROL_PORT)]
        if self.options.models == "stub":
            return ["stub-model-server", *ports]
        what = ["--kind", model["kind"], "--name", model["model"], "--model-dir", objects.MODELS]
        return ["model-server-testing", "serve", *what, *ports]

    def _workloads(self) -> list[Document]:
        specs = [WorkloadSpec(**entry) for entry in load(manifests_dir() / "providers/kubernetes/workloads.yaml")]
        image = self.image("client")
        return [*objects.beside(image), *documents(specs, {"client": image}, added=False, traced=False)]

    def _authorities(self) -> list[Document]:
        """Those that are there already, or new ones."""
        pairs = {name: self._existing(name) or Authority.create(title).pair for name, title in AUTHORITIES.items()}
        mesh = pairs["mesh-authority"]
        names = ("ca-cert.pem", "root-cert.pem", "cert-chain.pem")
        istiod = {**dict.fromkeys(names, mesh.certificate), "ca-key.pem": mesh.key}
        return [
            *(_secret(AUTHORITY_NAMESPACE, name, _pair(pair), TLS) for name, pair in pairs.items()),
            _secret("istio-system", "cacerts", istiod),
            _secret(policies.GATEWAY_NAMESPACE, "tier2-ca", {"ca.crt": mesh.certificate}),
        ]

    def _kiali_key(self) -> list[Document]:
        """What Kiali seals its users' sessions with: the one that is there already, or a new one."""
        there = self.kube.get("secret", KIALI, MONITORING)
        key = base64.b64decode(there.object["data"][SIGNING_KEY]) if there.ok else secrets.token_hex(16).encode()
        return [_secret(MONITORING, KIALI, {SIGNING_KEY: key})]

    def _existing(self, name: str) -> Certificate | None:
        reply = self.kube.get("secret", name, AUTHORITY_NAMESPACE)
        if not reply.ok:
            return None
        data = reply.require()["data"]
        return Certificate(base64.b64decode(data["tls.crt"]), base64.b64decode(data["tls.key"]))


def telemetry() -> list[Document]:
    """Configuration of telemetry's parts, who may reach them, and the tenants' doors to them."""
    certificates = "/etc/prometheus/certificates"
    values = {
        "scrape_interval": SCRAPE_INTERVAL,
        "rules": json.dumps(["/etc/prometheus/rules/*.yaml", f"{MORE_RULES}/*.yaml"]),
        "certificates": certificates,
        "alertmanager": f"alertmanager.{MONITORING}.svc.cluster.local:9093",
    }
    places = {"certificates": certificates, "targets": "/etc/prometheus/targets"}
    sink = f"alert-sink.{MONITORING}.svc.cluster.local"
    source = manifests_dir() / "observability"
    files = {
        "prometheus": {"prometheus.yaml": policies.prometheus("kubernetes", places, values)},
        "prometheus-rules": policies.rules(),
        "prometheus-discovery": {"targets.py": Path(targets.__file__).read_text()},
        "alertmanager": {"alertmanager.yaml": policies.alertmanager(f"http://{sink}:8080/slack", f"{sink}:1025")},
        "jaeger": {"jaeger.yaml": (source / "jaeger.yaml").read_text()},
        "chargeback": {"prices.yaml": (source / "prices.yaml").read_text()},
    }
    return [*(_config_map(MONITORING, name, data) for name, data in files.items()), *policies.telemetry()]


def loki() -> list[Document]:
    """Loki's configuration."""
    return [_config_map(MONITORING, "loki", {"loki.yaml": policies.loki("/loki")})]


def log_collector() -> list[Document]:
    """The configuration of the collectors, the same on every node."""
    store = f"http://loki.{MONITORING}.svc.cluster.local:3100"
    told = policies.log_collector("kubernetes", "/var/lib/log-collector", store)
    return [_config_map(MONITORING, "log-collector", {"log-collector.yaml": told})]


def grafana() -> list[Document]:
    """Grafana's provisioning."""
    return [_config_map(MONITORING, f"grafana-{kind}", files) for kind, files in policies.grafana().items()]


def kiali() -> list[Document]:
    """Kiali's configuration."""
    return [_config_map(MONITORING, KIALI, {"kiali.yaml": policies.kiali()})]


def certificate_of(kube: Kube, authority: str) -> bytes:
    """Certificate of an authority of the platform, PEM."""
    data = kube.get("secret", authority, AUTHORITY_NAMESPACE).require()["data"]
    return base64.b64decode(data["tls.crt"])


def _pair(pair: Certificate) -> dict[str, bytes]:
    return {"tls.crt": pair.certificate, "tls.key": pair.key}


def _secret(namespace: str, name: str, data: Mapping[str, bytes], kind: str = "Opaque") -> Document:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": encoded}


def _config_map(namespace: str, name: str, data: Mapping[str, str]) -> Document:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


def _text(found: list[Document]) -> str:
    return json.dumps(found, sort_keys=True)

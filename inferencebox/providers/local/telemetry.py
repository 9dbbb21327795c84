"""Telemetry of the box: Prometheus, prom-label-proxy, Alertmanager, Jaeger and chargeback in one pod of the mesh, and
the alert sink beside it, which stands for the world outside.

All of it runs at low priority: what is measured comes first.
"""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from inferencebox import policies
from inferencebox.manifests import Document, load
from inferencebox.paths import manifests_dir
from inferencebox.pki import Certificate
from inferencebox.platform import Workload, WorkloadSpec
from inferencebox.replacing import replace_file

from .addresses import PODS
from .box import project_python
from .mesh import pod_name
from .supervisor import Program
from .workloads import IN_MESH_LABEL, SERVED_LABEL

NAMESPACE = "monitoring"
IDENTITY = "ns/monitoring/sa/observability"
POD = WorkloadSpec(NAMESPACE, "observability", "observability", program="client")
ADDRESS = "10.99.0.30"
PROGRAMS = ("prometheus", "alertmanager", "jaeger", "prom-label-proxy")
SCRAPE_SECONDS = 5
NICE = ("nice", "-n", "10")

# how each part says that it is ready: port in the pod, path
HEALTH: Mapping[str, tuple[int, str]] = {
    "prometheus": (9090, "/-/ready"),
    "alertmanager": (9093, "/-/ready"),
    "jaeger": (16686, "/api/services"),
    "prom-label-proxy": (8081, "/healthz"),
    "chargeback": (8090, "/metrics/"),
    "alert-sink": (8080, "/health"),
}
SINK = "alert-sink"


_TIER_2: dict[str, object] = {
    "targets": [f"{PODS['istio-system.istio-ingressgateway']}:15090"],
    "labels": {"namespace": "istio-system", "pod": "istio-ingressgateway", "app": "istio-ingressgateway"},
}


def workload() -> Workload:
    """The pod that everything but the sink shares."""
    return Workload(
        namespace=NAMESPACE,
        name=POD.name,
        app=POD.app,
        version=POD.version,
        address=ADDRESS,
        labels={"app": POD.app, "version": POD.version, **IN_MESH_LABEL},
        service_account=POD.app,
    )


def pod_of(component: str) -> str:
    """The network in which a part runs."""
    return SINK if component == SINK else pod_name(workload())


def objects() -> list[Document]:
    """Services of telemetry, and who may reach them which way."""
    return [*load(manifests_dir() / "providers" / "local" / "telemetry.yaml"), *policies.telemetry()]


@dataclass(frozen=True)
class Telemetry:
    """Files and programs of telemetry.

    Args:
        home: folder of its own below the instance's state.
        binaries: program name -> path.
    """

    home: Path
    binaries: Mapping[str, Path]

    @property
    def targets(self) -> Path:
        """The folder of files that say what Prometheus scrapes."""
        return self.home / "targets"

    @property
    def rules(self) -> Path:
        """The folder of rule files that Prometheus reads."""
        return self.home / "rules"

    def prepare(self, certificate: Certificate, authority: bytes) -> None:
        """Configuration of every part; the certificate is what Prometheus shows the sidecars that it scrapes."""
        for name in ("targets", "rules", "prometheus", "alertmanager"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        certificate.write(self.home / "certificates")
        (self.home / "certificates" / "ca.crt").write_bytes(authority)
        for name, text in policies.rules().items():
            (self.rules / name).write_text(text)
        values = {
            "scrape_interval": f"{SCRAPE_SECONDS}s",
            "rules": json.dumps([f"{self.rules}/*.yaml"]),
            "certificates": str(self.home / "certificates"),
            "alertmanager": "127.0.0.1:9093",
        }
        places = {"targets": str(self.home / "targets"), "tier1": PODS["envoy-gateway"], "istiod": PODS["istiod"]}
        (self.home / "prometheus.yaml").write_text(policies.prometheus("local", places, values))
        sink = PODS[SINK]
        told = policies.alertmanager(f"http://{sink}:8080/slack", f"{sink}:1025")
        (self.home / "alertmanager.yaml").write_text(told)
        self.write_targets([])

    def write_targets(self, workloads: Iterable[Workload]) -> None:
        """Tell Prometheus which replicas there are; it notices by itself."""
        everyone = list(workloads)
        models = [_target(each, 8080) for each in everyone if SERVED_LABEL in each.labels]
        proxies = [_TIER_2, *(_target(each, 15090) for each in everyone if each.mesh)]
        for name, targets in (("models", models), ("proxies", proxies)):
            replace_file(self.targets / f"{name}.json", json.dumps(targets))

    def programs(self) -> list[Program]:
        home, source = self.home, manifests_dir() / "observability"
        return [
            self._program(
                "prometheus",
                f"--config.file={home / 'prometheus.yaml'}",
                f"--storage.tsdb.path={home / 'prometheus'}",
                "--storage.tsdb.retention.time=6h",
                "--web.enable-lifecycle",
            ),
            self._alertmanager(),
            self._program("jaeger", f"--config=file:{source / 'jaeger.yaml'}"),
            self._program(
                "prom-label-proxy",
                "--insecure-listen-address=0.0.0.0:8081",
                "--upstream=http://127.0.0.1:9090",
                "--label=tenant",
                "--header-name=X-Tenant",
                "--enable-label-apis",
                "--error-on-replace",
            ),
            self._own("chargeback", "--port=8090", f"--prices={source / 'prices.yaml'}", f"--ledger={home / 'ledger'}"),
            self._own(SINK, "--port=8080", "--smtp-port=1025"),
        ]

    def _alertmanager(self) -> Program:
        """Debian's reads its templates from /usr/share of the machine: it gets one in which its package's are."""
        program = self._program(
            "alertmanager",
            f"--config.file={self.home / 'alertmanager.yaml'}",
            f"--storage.path={self.home / 'alertmanager'}",
            "--cluster.listen-address=",
        )
        templates = self.binaries["alertmanager"].resolve().parents[1] / "root" / "usr" / "share" / "prometheus"
        if not templates.is_dir():  # not Debian's
            return program
        link = shlex.join(["ln", "-s", str(templates), "/usr/share/prometheus"])
        script = f"mount -t tmpfs tmpfs /usr/share && {link} && exec {shlex.join(program.argv)}"
        return replace(program, argv=["unshare", "--mount", "sh", "-c", script])

    def _program(self, name: str, *flags: str) -> Program:
        return Program(name, [*NICE, str(self.binaries[name]), *flags], pod=pod_of(name), cwd=self.home)

    @staticmethod
    def _own(name: str, *flags: str) -> Program:
        return Program(name, [*NICE, str(project_python().parent / name), *flags], pod=pod_of(name))


def _target(workload: Workload, port: int) -> dict[str, object]:
    labels = {"namespace": workload.namespace, "pod": workload.name, "app": workload.app}
    if workload.namespace.startswith("tenant-"):
        labels |= {"tenant": workload.namespace, "model": workload.app, "version": workload.version}
    return {"targets": [f"{workload.address}:{port}"], "labels": labels}
